# Sourced by the JVM clients: fetches jars from Maven Central, builds classes, and starts java with libmxnet.so.

. "$(dirname "${BASH_SOURCE[0]}")/libmxnet.sh"

# For programs that run for seconds: to optimise their code would take longer than the optimised code saves.
QUICKLY=-XX:TieredStopAtLevel=1
COPY_JARS=org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies

# compile JARS CLASSES SOURCE...: compile sources of Java, or of Clojure, the first of them in the root of its sources.
compile() {
    local jars=$1 classes=$2 folder=${3%/*} source
    shift 2
    mkdir -p "$classes"
    need jar "apt-get install openjdk-17-jdk-headless"
    # In a jar, because an archive of loaded classes, with which java starts faster, takes no folder.
    case $1 in
    *.java)
        need javac "apt-get install openjdk-17-jdk-headless"
        javac "-J$QUICKLY" -encoding UTF-8 -cp "$jars" -d "$classes" "$@" &&
            jar --create --file "$classes.jar" -C "$classes" .
        ;;
    *.clj)
        # Otherwise clojure.main compiles them at every start, which takes a second, and reads and verifies some
        # thousand classes of Clojure, which takes half a second. The archive has those of both programs.
        for source in "$@"; do
            source=${source#"$folder"/}
            echo "${source%.clj}"
        done | tr /_ .- | xargs java "$QUICKLY" -Dfile.encoding=UTF-8 -Dclojure.compile.path="$classes" \
            -cp "$classes:$jars:$folder" clojure.lang.Compile &&
            jar --create --file "$classes.jar" -C "$classes" . &&
            java "$QUICKLY" -XX:ArchiveClassesAtExit="$classes.jsa" -cp "$classes.jar:$jars" \
                clojure.main -e "(require 'predict 'fine-tune)" &>/dev/null
        ;;
    esac >&2
}

# class_path FOLDER [SOURCE...]: the jars of FOLDER/pom.xml and the classes of the sources. Both are built once,
# and again when one of these files, or this one, has changed. Call it in $(...), with which its lock ends.
class_path() {
    local build pom=$1/pom.xml stamp error
    build=$(build_folder "$(basename "$1")") || exit 3
    shift
    need java "apt-get install openjdk-17-jdk-headless"
    lock "$build"
    stamp=$(cat "${BASH_SOURCE[0]}" "$pom" "$@" | cksum)
    if [ "$(cat "$build/stamp" 2>/dev/null)" != "$stamp" ]; then
        need mvn "apt-get install maven"
        rm -rf "${build:?}"/{stamp,lib,classes*}
        echo "building, with jars from Maven Central" >&2
        error=$(MAVEN_OPTS="$QUICKLY ${MAVEN_OPTS:-}" mvn -q -B -f "$pom" "$COPY_JARS" "-DoutputDirectory=$build/lib" 2>&1) ||
            missing "jars from Maven Central; $(sed -n '/.*\[ERROR\] /{s///p;q}' <<<"$error")"
        compile "$build/lib/*" "$build/classes" "$@" || return 1
        echo "$stamp" >"$build/stamp"
    fi
    echo "$build/classes.jar:$build/lib/*"
}

# start_java CLASS_PATH ARGUMENT...: run java, with LIBMXNET set, and exit with its code. The first run that succeeds
# archives the classes that it loaded: a later start takes a third less processor time.
start_java() {
    local home archive=${1%%:*} code=0
    archive=${archive%.jar}.jsa
    home=$(dirname "$(dirname "$(realpath "$(command -v java)")")")
    LIBMXNET=$(find_libmxnet) || exit 3
    export LIBMXNET
    # MXNet 1.4 replaces the SIGSEGV handler that the JVM needs; libjsig keeps both.
    [ ! -f "$home/lib/libjsig.so" ] || export LD_PRELOAD="$home/lib/libjsig.so"
    # Logs go to standard output: that an archive is of another JVM, which then does without it.
    set -- "$QUICKLY" -Xlog:disable -Djna.encoding=UTF-8 -Dfile.encoding=UTF-8 -cp "$@"
    [ ! -f "$archive" ] || exec java -XX:SharedArchiveFile="$archive" "$@"
    java -XX:ArchiveClassesAtExit="$archive.$$" "$@" || code=$?
    if [ "$code" = 0 ]; then mv -f "$archive.$$" "$archive"; else rm -f "$archive.$$"; fi
    exit "$code"
}
