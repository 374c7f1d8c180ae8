# Sourced by the JVM clients: fetches jars from Maven Central, builds classes, and starts java with libmxnet.so.

. "$(dirname "${BASH_SOURCE[0]}")/libmxnet.sh"

COPY_JARS=org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies

# compile JARS CLASSES SOURCE...: compile sources of Java, or of Clojure, the first of them in the root of its sources.
compile() {
    local jars=$1 classes=$2 folder=${3%/*} source
    shift 2
    mkdir -p "$classes"
    case $1 in
    *.java)
        need javac "apt-get install openjdk-17-jdk-headless"
        javac -encoding UTF-8 -cp "$jars" -d "$classes" "$@"
        ;;
    *.clj)
        # Otherwise clojure.main compiles them at every start, which takes a second, and reads and verifies some
        # thousand classes of Clojure, which takes half a second; an archive of classes takes no folder, so they are a jar.
        need jar "apt-get install openjdk-17-jdk-headless"
        for source in "$@"; do
            source=${source#"$folder"/}
            echo "${source%.clj}"
        done | tr /_ .- | xargs java -Dfile.encoding=UTF-8 -Dclojure.compile.path="$classes" \
            -cp "$classes:$jars:$folder" clojure.lang.Compile &&
            jar --create --file "$classes.jar" -C "$classes" . &&
            java -XX:ArchiveClassesAtExit="$classes.jsa" -cp "$classes.jar:$jars" \
                clojure.main -e "(require 'predict 'fine-tune)" &>/dev/null
        ;;
    esac >&2
}

# class_path FOLDER [SOURCE...]: the jars of FOLDER/pom.xml and the classes of the sources. Both are built once,
# and again when one of these files, or this one, has changed. Call it in $(...), with which its lock ends.
class_path() {
    local build classes pom=$1/pom.xml stamp error
    build=$(build_folder "$(basename "$1")") || exit 3
    shift
    need java "apt-get install openjdk-17-jdk-headless"
    lock "$build"
    stamp=$(cat "${BASH_SOURCE[0]}" "$pom" "$@" | cksum)
    if [ "$(cat "$build/stamp" 2>/dev/null)" != "$stamp" ]; then
        need mvn "apt-get install maven"
        rm -rf "${build:?}"/{stamp,lib,classes,classes.jar,classes.jsa}
        echo "building, with jars from Maven Central" >&2
        error=$(mvn -q -B -f "$pom" "$COPY_JARS" "-DoutputDirectory=$build/lib" 2>&1) ||
            missing "jars from Maven Central; $(sed -n '/.*\[ERROR\] /{s///p;q}' <<<"$error")"
        compile "$build/lib/*" "$build/classes" "$@" || return 1
        echo "$stamp" >"$build/stamp"
    fi
    classes=$build/classes
    [ ! -f "$classes.jar" ] || classes+=.jar
    echo "$classes:$build/lib/*"
}

# start_java CLASS_PATH ARGUMENT...: become java, with LIBMXNET set.
start_java() {
    local home archive=${1%%:*}
    archive=${archive%.jar}.jsa
    home=$(dirname "$(dirname "$(realpath "$(command -v java)")")")
    LIBMXNET=$(find_libmxnet) || exit 3
    export LIBMXNET
    # MXNet 1.4 replaces the SIGSEGV handler that the JVM needs; libjsig keeps both.
    [ ! -f "$home/lib/libjsig.so" ] || export LD_PRELOAD="$home/lib/libjsig.so"
    # Logs go to standard output: that an archive is of another JVM, which then does without it.
    set -- -cp "$@"
    [ ! -f "$archive" ] || set -- -XX:SharedArchiveFile="$archive" -Xlog:disable "$@"
    # A fast start matters more here than optimised code.
    exec java -XX:TieredStopAtLevel=1 -Djna.encoding=UTF-8 -Dfile.encoding=UTF-8 "$@"
}
