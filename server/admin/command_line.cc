#include "server/admin/command_line.h"

#include <algorithm>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "server/base/utf8.h"

namespace userintent::admin {
namespace {

constexpr char kHelp[] =
    R"(userintent-ledger: looks into the ledger of the User Intent gateway, and settles what it cannot know.

  userintent-ledger [--ledger=sqlite:PATH|postgresql://...] [--json] COMMAND

  show REQUEST_ID [--caller=NAME]
      everything recorded about a request, of every caller that used this id; of an unresolved one also what webhooks
      have to say
  unresolved [--limit=100] [--older_than=1h] [--not_superseded] [--sending]
      requests whose outcome nobody knows, the oldest first, and whether webhooks name them; without those that their
      caller replaced; or, instead, those that run
  stats
      how much of everything there is, and how many requests are under which key
  resolve REQUEST_ID --caller=NAME (--created=INTENT_ID | --not_created) --actor=NAME --evidence=TEXT [--yes]
      records what became of an unresolved request. Created: its repeats answer OK with that intent. Not created: its
      repeats answer UPSTREAM_REJECTED, and only a new request_id can try again. Nothing is ever sent again under this
      id. The evidence (a ticket, the id of Astra's answer) is kept for ever: no personal data. On a terminal it
      shows what will change and asks first, unless --yes is given. Without an outcome it changes nothing and lists
      the outcomes that would be accepted
  audit [REQUEST_ID] [--limit=100]
      what operators did, and what Astra's late answers and webhooks settled ("astra"), the newest first
  conflicts [--limit=100]
      answers and webhooks of Astra that contradict what is recorded, the newest first; they changed nothing
  find --email [--limit=100] [--ledger_key_file=FILE [--ledger_previous_key_file=FILE,...]]
      the requests of an e-mail address, the oldest first, and the attempts that it used. The address is one line on
      stdin: the command line is no place for it. Without a server the ledger's keys are needed
  backup FILE
      copies the ledger into a new file and checks the copy, also while the server runs; calls are served meanwhile
  check FILE  (or backup --check FILE)
      reads a copy from end to end: is it a whole ledger, and what is in it?

  restore FILE [--ledger_key_file=FILE]
      puts a copy in the ledger's place, while no server runs: checked as a whole (and against the key), what was there
      is kept under another name. It says what to give the next start as --ledger_restored

For a ledger in PostgreSQL, with the database's credentials and beside any number of replicas; there is no backup, check
and restore, which the database has itself:
  migrate
      makes the ledger's tables, or brings them up to date, also while replicas of the version before run
  replicas
      the processes that share the ledger: which of them beat, which are gone, and what they have under way

  copy --from=sqlite:PATH --to=postgresql://... [--undo]
      moves a ledger from its file into an empty database, while no server runs; compares both, and marks the file, which
      no start takes afterwards. Cut off, it is to be run again. --undo takes the mark off again where the database holds
      nothing

  --ledger=sqlite:PATH  (or postgresql://...; default: USERINTENT_LEDGER of the environment, else sqlite:data/ledger.db)
  --json                one JSON object on stdout

While a server runs on the ledger, it answers, through the socket PATH.admin. Otherwise the file is opened, with the
checks of a server's start (also an older schema is brought up to date), but without the ledger's key.
Exit status: 0 done, 1 refused or not found, 2 wrong usage.
)";

struct FlagRow {
  const char* name;
  bool boolean;
  std::string_view commands;  // which take it; empty: all
};

constexpr FlagRow kFlags[] = {
    {"ledger", false, ""},
    {"json", true, ""},
    {"caller", false, "show resolve"},
    {"limit", false, "unresolved audit conflicts find"},
    {"older_than", false, "unresolved"},
    {"not_superseded", true, "unresolved"},
    {"sending", true, "unresolved"},
    {"created", false, "resolve"},
    {"not_created", true, "resolve"},
    {"actor", false, "resolve"},
    {"evidence", false, "resolve"},
    {"yes", true, "resolve"},
    {"email", true, "find"},
    {"ledger_key_file", false, "find restore"},
    {"ledger_previous_key_file", false, "find"},
    {"check", true, "backup"},
    {"from", false, "copy"},
    {"to", false, "copy"},
    {"undo", true, "copy"},
};

}  // namespace

const char* Help() { return kHelp; }

absl::Status Usage(const std::string& text) {
  return absl::InvalidArgumentError(absl::StrCat(text, "; --help tells more"));
}

absl::StatusOr<CommandLine> Parse(int argc, const char* const* argv) {
  CommandLine line;
  for (int i = 1; i < argc; ++i) {
    std::string_view word = argv[i];
    if (!IsUtf8(word)) return Usage(absl::StrCat("argument ", i, " is not UTF-8"));
    if (word.size() < 2 || word.front() != '-') {
      line.words.emplace_back(word);
      continue;
    }
    word.remove_prefix(word.substr(0, 2) == "--" ? 2 : 1);
    const size_t equals = word.find('=');
    const std::string name(word.substr(0, equals));
    if (name == "help" || name == "h") line.help = true;
    if (line.help) return line;
    const auto* row =
        std::find_if(std::begin(kFlags), std::end(kFlags), [&](const FlagRow& r) { return name == r.name; });
    if (row == std::end(kFlags)) return Usage(absl::StrCat("argument ", i, ": there is no such flag"));
    std::string value;
    if (equals != std::string_view::npos) {
      if (row->boolean) return Usage(absl::StrCat("--", name, " takes no value"));
      value = std::string(word.substr(equals + 1));
    } else if (!row->boolean) {
      if (++i == argc) return Usage(absl::StrCat("--", name, " needs a value"));
      value = argv[i];
      if (!IsUtf8(value)) return Usage(absl::StrCat("argument ", i, " is not UTF-8"));
    }
    if (!line.flags.emplace(name, value).second) return Usage(absl::StrCat("--", name, " is given twice"));
  }
  return line;
}

absl::Status CheckFlags(const CommandLine& line) {
  for (const FlagRow& row : kFlags) {
    if (line.has(row.name) && !row.commands.empty() && row.commands.find(line.words[0]) == std::string_view::npos) {
      return Usage(absl::StrCat(line.words[0], " does not take --", row.name));
    }
  }
  return absl::OkStatus();
}

}  // namespace userintent::admin
