"""How the programs were compiled and linked, read off the programs themselves.

What is asked here holds for GCC on Debian 12 and 13. A build with sanitizers has other flags, and what a sanitizer
replaces is not asked of it.
"""

import functools
import platform
import re
import subprocess

import pytest

from support.process import BIN_DIR

PROGRAMS = ["userintent-server", "userintent-ledger"]


@functools.cache
def told(program, *command):
    return subprocess.run([*command, str(BIN_DIR / program)], check=True, capture_output=True, text=True).stdout


def dynamic(program):
    """The dynamic section: tag -> its values."""
    entries = {}
    for tag, value in re.findall(r"\((\w+)\)\s+(.*)", told(program, "readelf", "-dW")):
        entries.setdefault(tag, []).append(value)
    return entries


def segments(program):
    """Program header -> its flags."""
    rows = re.findall(r"^  (\w+) +(?:0x[0-9a-f]+ +){5}([RWE ]{3})", told(program, "readelf", "-lW"), re.M)
    assert rows
    return [(kind, flags.replace(" ", "")) for kind, flags in rows]


def imports(program):
    return set(re.findall(r" UND (\w+)", told(program, "readelf", "--dyn-syms", "-W")))


def sanitized(program):
    return any(name.startswith(("__asan_", "__tsan_", "__ubsan_")) for name in imports(program))


@pytest.mark.parametrize("program", PROGRAMS)
def test_its_place_in_memory_is_chosen_at_each_start(program):
    assert re.search(r"Type:\s+DYN", told(program, "readelf", "-hW"))
    assert any("PIE" in value for value in dynamic(program)["FLAGS_1"])
    assert "TEXTREL" not in dynamic(program) and not any("TEXTREL" in v for v in dynamic(program).get("FLAGS", []))


@pytest.mark.parametrize("program", PROGRAMS)
def test_nothing_is_writable_and_executable(program):
    kinds = segments(program)
    assert ("GNU_STACK", "RW") in kinds
    assert not [kind for kind, flags in kinds if "W" in flags and "E" in flags]


@pytest.mark.parametrize("program", PROGRAMS)
def test_tables_of_addresses_are_read_only_once_it_runs(program):
    if sanitized(program):
        assert "GNU_RELRO" in dict(segments(program))
        return
    assert "GNU_RELRO" in dict(segments(program))
    assert "BIND_NOW" in dynamic(program) or any("BIND_NOW" in value for value in dynamic(program).get("FLAGS", []))
    assert any("NOW" in value for value in dynamic(program)["FLAGS_1"])


@pytest.mark.parametrize("program", PROGRAMS)
def test_libraries_come_from_the_system_alone(program):
    assert not {"RPATH", "RUNPATH"} & set(dynamic(program))


@pytest.mark.parametrize("program", PROGRAMS)
def test_functions_check_their_stack_and_their_buffers(program):
    names = imports(program)
    assert "__stack_chk_fail" in names
    if not sanitized(program):  # -D_FORTIFY_SOURCE
        assert [name for name in names if name.endswith("_chk")]


@functools.cache
def code(program):
    """Function -> its instructions, of our own functions that stand in the symbol table; the first 40 of each."""
    functions, name = {}, None
    with subprocess.Popen(["objdump", "-d", "--no-show-raw-insn", "--section=.text", str(BIN_DIR / program)],
                          stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if line.endswith(">:\n"):
                name = line.split("<", 1)[1][:-3]
                functions[name] = []
            elif name is not None and "\t" in line and len(functions[name]) < 40:
                functions[name].append(line.split("\t", 1)[1].strip())
    return functions


X86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="an instruction of x86-64")


@X86
@pytest.mark.parametrize("program", PROGRAMS)
def test_jumps_land_on_marked_places(program):
    """Our functions begin with endbr64 (-fcf-protection). Nothing enforces it: Debian's C runtime (Scrt1.o) has no mark,
    so the linker may not mark the program (.note.gnu.property), and the kernel has no such check for programs yet."""
    if sanitized(program):
        return
    ours = {name: lines for name, lines in code(program).items()
            if name == "main" or (re.match(r"_ZNK?10userintent", name) and ".cold" not in name and ".part" not in name
                                  and ".isra" not in name and ".constprop" not in name)}
    assert len(ours) > 100
    # A function that is only ever called by its name needs no mark where the compiler sees all callers.
    marked = [name for name, lines in ours.items() if lines[0] == "endbr64"]
    assert "main" in marked and len(marked) > 0.95 * len(ours)


@X86
def test_large_stack_frames_are_touched_page_by_page():
    """-fstack-clash-protection: a frame above a page is not jumped over, but probed."""
    if sanitized("userintent-server"):
        return
    probes = [name for name, lines in code("userintent-server").items()
              if any(re.search(r"\bor[ql]\s+\$0x0,(0x[0-9a-f]+)?\(%rsp", line) for line in lines)]
    assert probes


# What the compiler was told, as it wrote down itself beside the code (the image's programs have that stripped).
FLAGS = ["-fstack-protector-strong", "-ftrivial-auto-var-init=zero", "-fstack-clash-protection", "-fPIE"]


@pytest.mark.parametrize("program", PROGRAMS)
def test_all_of_it_was_compiled_so(program):
    """Generated code too, which is what reads a caller's bytes."""
    if sanitized(program):
        return
    info = told(program, "readelf", "--debug-dump=info", "--dwarf-depth=1")
    units = re.findall(r"DW_AT_producer.*: (GNU C.*)", info)
    assert len(units) > 25  # a dozen sources are one (USERINTENT_UNITY)
    for part in ("user_intent_service.pb.cc", "ledger_admin_service.pb.cc", "server/base/", "server/ledger/", "server/intent/", "server/rpc/"):
        assert re.search(rf"DW_AT_name.*{part}", info), part
    flags = FLAGS + (["-fcf-protection=full"] if platform.machine() == "x86_64" else [])
    for unit in units:
        assert not [flag for flag in flags if flag not in unit.split()], unit
