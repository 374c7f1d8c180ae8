# Sourced by the clients on the JVM: jars from Maven Central, classes, and java with the libmxnet.so that was found.

. "$(dirname "${BASH_SOURCE[0]}")/libmxnet.sh"

# class_path FOLDER [SOURCE.java...]: the jars of FOLDER/pom.xml and the classes of the sources. Both are made once,
# and again when one of these files has changed.
class_path() {
    local build lib=lib classes=classes pom=$1/pom.xml stamp error
    build=$(build_folder "$(basename "$1")") || exit 3
    shift
    need java "apt-get install openjdk-17-jdk-headless"
    stamp=$(cat "$pom" "$@" | sha256sum)
    if [ "$(cat "$build/stamp" 2>/dev/null)" != "$stamp" ]; then
        need mvn "apt-get install maven"
        rm -rf "$build/stamp" "${build:?}/$lib" "${build:?}/$classes"
        echo "building, with jars from Maven Central" >&2
        error=$(mvn -q -B -Dstyle.color=never -f "$pom" \
            dependency:copy-dependencies "-DoutputDirectory=$build/$lib" 2>&1) ||
            missing "jars from Maven Central: $(grep -m 1 ERROR <<<"$error")"
        if [ $# -gt 0 ]; then
            need javac "apt-get install openjdk-17-jdk-headless"
            javac -encoding UTF-8 -cp "$build/$lib/*" -d "$build/$classes" "$@" >&2 || return 1
        fi
        echo "$stamp" >"$build/stamp"
    fi
    echo "$build/$classes:$build/$lib/*"
}

# start_java CLASS_PATH ARGUMENT...: become java, with LIBMXNET set.
start_java() {
    local home
    home=$(dirname "$(dirname "$(realpath "$(command -v java)")")")
    LIBMXNET=$(find_libmxnet) || exit 3
    export LIBMXNET
    # MXNet 1.4 takes the JVM's handler of SIGSEGV away, which the JVM needs; libjsig keeps both.
    [ ! -f "$home/lib/libjsig.so" ] || export LD_PRELOAD="$home/lib/libjsig.so"
    # Quick to start, which matters more here than the JVM's best code.
    exec java -XX:TieredStopAtLevel=1 -Djna.encoding=UTF-8 -Dfile.encoding=UTF-8 -cp "$@"
}
