#!/bin/sh
# Builds a TensorRT engine from one ONNX file of a bundle, on the board that will run it, with nothing
# but trtexec. An engine fits the model, the TensorRT version and the GPU it was built on, and is named
# after them: build it on each board.
# Not run on a board yet: the options are those of trtexec's own parser in TensorRT 8.2 to 11, and the
# script is tested against a stand-in that refuses any other.
set -eu

usage() {
    cat <<'TEXT'
usage: sh build_engine.sh [options] [BUNDLE]

  BUNDLE           the bundle folder (default: the folder of this script)
  -m MODEL         name of a model in the manifest (default: float16)
  -f FILE          an ONNX file of the bundle in place of -m
  -o ENGINE        the engine to write (default: a name that says model, TensorRT, GPU and Jetson Linux)
  -s NAME:SHAPE    input and shape (default from the manifest, for example images:1x224x224x3)
  -w MIB           workspace in MiB while building (default: a quarter of the free memory, at most 2048)
  -d CORE          build for this DLA core; what it cannot run goes to the GPU
  -r               build again where the engine is there already
  -n               print the trtexec command and stop
  -h               this text

Before you time anything on a Jetson:  sudo nvpmodel -q  and  sudo jetson_clocks

examples:
  sh build_engine.sh                       the float16 model of this bundle
  sh build_engine.sh -m int8               the INT8 one: keep the faster, if it is accurate enough
  sh build_engine.sh -s images:1x96x96x3 -f model.float16.onnx .

Beside the engine: ENGINE.json (what it is, and how the board was set), ENGINE.log, and a timing cache,
which makes a second build quick.

exit codes: 0 built; 1 trtexec failed; 2 wrong usage, no trtexec, or a version that cannot run the file
TEXT
}

fail() {
    printf 'build_engine.sh: %s\n' "$1" >&2
    exit "${2:-2}"
}

short() {
    printf '%s' "$1" | cut -c1-8
}

need_value() {
    [ "$2" -ge 2 ] || fail "$1 needs a value; see -h"
}

root=${BOARD_ROOT:-}  # tests put a board's files elsewhere
model=float16 file='' engine='' shape='' workspace='' dla='' again=0 dry=0 bundle=''
while [ $# -gt 0 ]; do
    case $1 in
        -h | --help) usage; exit 0 ;;
        -n) dry=1 ;;
        -r) again=1 ;;
        -m) need_value "$1" $#; model=$2; shift ;;
        -f) need_value "$1" $#; file=$2; shift ;;
        -o) need_value "$1" $#; engine=$2; shift ;;
        -s) need_value "$1" $#; shape=$2; shift ;;
        -w) need_value "$1" $#; workspace=$2; shift ;;
        -d) need_value "$1" $#; dla=$2; shift ;;
        -*) fail "unknown option $1; see -h" ;;
        *) [ -z "$bundle" ] || fail "one bundle folder, got $bundle and $1"; bundle=$1 ;;
    esac
    shift
done
[ -n "$bundle" ] || bundle=$(dirname "$0")
case $workspace in
    *[!0-9]*) fail "-w needs a whole number of MiB, got $workspace" ;;
esac
case $dla in
    '' | 0 | 1) ;;
    *) fail "-d needs the number of a DLA core, 0 or 1, got $dla" ;;
esac
while [ "${workspace#0}" != "$workspace" ]; do workspace=${workspace#0}; done
manifest=$bundle/manifest.json
[ -f "$manifest" ] || fail "$bundle is not a bundle: it has no manifest.json; give the bundle folder"

# entry KEY VALUE: the manifest's entry of the model whose KEY is VALUE, on one line.
entry() {
    tr '\n\r\t' '   ' <"$manifest" | awk -v key="$1" -v value="$2" '{
        if (!match($0, "\"models\" *: *\\[")) exit
        text = substr($0, RSTART)
        depth = 0; from = 0; quoted = 0; list = 0
        for (i = 1; i <= length(text); i++) {
            c = substr(text, i, 1)
            if (quoted) { if (c == "\\") i++; else if (c == "\"") quoted = 0; continue }
            if (c == "\"") { quoted = 1; continue }
            if (c == "[" && !list) { list = 1; continue }
            if (!list) continue
            if (c == "{") { if (depth == 0) from = i; depth++ }
            if (c == "}") {
                depth--
                if (depth == 0) {
                    one = substr(text, from, i - from + 1)
                    plain = one  # input and output have a name too: of these only the model counts
                    gsub(/"(input|output)" *: *[{][^}]*[}]/, "", plain)
                    if (match(plain, "\"" key "\" *: *\"[^\"]*\"")) {
                        got = substr(plain, RSTART, RLENGTH)
                        sub(/^"[a-z]*" *: *"/, "", got); sub(/"$/, "", got)
                        if (got == value) { print one; exit }
                    }
                }
            }
            if (c == "]" && depth == 0) exit
        }
    }'
}

# text KEY: the string at KEY of what comes on stdin.
text() {
    sed -n 's/.*"'"$1"'" *: *"\([^"]*\)".*/\1/p'
}

if [ -n "$file" ]; then
    about=$(entry file "$(basename "$file")")
    [ -n "$about" ] || about=$(entry file "$file")
else
    about=$(entry name "$model")
    [ -n "$about" ] || fail "the manifest has no model named $model; look at the \"name\" lines of $manifest"
fi
input=$(printf '%s\n' "$about" | sed -nE 's/.*"input" *: *[{]([^}]*)[}].*/\1/p')
plain=$(printf '%s\n' "$about" | sed -E 's/"(input|output)" *: *[{][^}]*[}]//g')
[ -n "$file" ] || file=$(printf '%s\n' "$plain" | text file)
precision=$(printf '%s\n' "$plain" | text precision)
layout=$(printf '%s\n' "$input" | text layout)
case $file in
    /* | *..*) fail "the model file must lie in the bundle, got $file" ;;
esac
onnx=$bundle/$file
[ -f "$onnx" ] || fail "$onnx is not there"
real=$(readlink -f "$onnx" 2>/dev/null || true)
home=$(readlink -f "$bundle" 2>/dev/null || true)
case $real in
    '' | "$home"/*) ;;
    *) fail "$onnx is a link that leaves the bundle: copy the bundle again" ;;
esac
[ -s "$onnx" ] || fail "$onnx is empty: copy the bundle again"
# A tensor that lies in another file states it under the key "location", a string of 8 bytes: after its length (8, or 0
# where the length is drawn out). trtexec would read any path that is stated there.
if LC_ALL=C tr '\n\000\010' '.\n' <"$onnx" | LC_ALL=C grep -q '^location'; then
    fail "$onnx keeps weights in another file; a model is one ONNX file with all its weights: export the model again"
fi
if [ -z "$precision" ]; then
    fail "the manifest says nothing about $file; use -m with a name from it"
fi
if [ -z "$shape" ]; then
    name=$(printf '%s\n' "$input" | text name)
    sizes=$(printf '%s\n' "$input" | sed -nE 's/.*"shape" *: *\[ *(null|[0-9]+) *, *([0-9]+) *, *([0-9]+) *, *([0-9]+) *\].*/\2x\3x\4/p')
    if [ -z "$name" ] || [ -z "$sizes" ]; then
        fail "the manifest does not state the input of $file; give it with -s"
    fi
    batch=$(printf '%s\n' "$input" | sed -nE 's/.*"shape" *: *\[ *([0-9]+) *,.*/\1/p')
    shape=$name:${batch:-1}x$sizes
fi
trtexec=${TRTEXEC:-}
if [ -z "$trtexec" ]; then
    if [ -x /usr/src/tensorrt/bin/trtexec ]; then
        trtexec=/usr/src/tensorrt/bin/trtexec
    else
        trtexec=$(command -v trtexec || true)
    fi
fi
if [ -z "$trtexec" ] || [ ! -x "$trtexec" ]; then
    fail "no trtexec: JetPack puts it in /usr/src/tensorrt/bin (sudo apt install tensorrt); or set TRTEXEC=/path/to/trtexec"
fi

# The banner reads [TensorRT v8502] (8.5.2), [TensorRT v100300] (10.3.0) or [TensorRT v11.1.0.106].
help=$("$trtexec" --help 2>&1 || true)
version=$(printf '%s\n' "$help" | sed -n 's/.*\[TensorRT v\([0-9.]*\)\].*/\1/p' | head -n 1)
case $version in
    *.*) major=${version%%.*}; minor=${version#*.}; minor=${minor%%.*} ;;
    [0-9][0-9][0-9][0-9]) major=$((version / 1000)); minor=$((version / 100 % 10)) ;;
    [0-9][0-9][0-9][0-9][0-9]*) major=$((version / 10000)); minor=$((version / 100 % 100)) ;;
    *) fail "$trtexec does not say which TensorRT it is; its first line should hold [TensorRT v...]" ;;
esac
[ "$major" -ge 8 ] || fail "TensorRT $major.$minor is too old: 8.2 (JetPack 4.6) or newer is needed"
if [ "$layout" = uint8_nhwc ] && [ "$major" -eq 8 ] && [ "$minor" -lt 5 ]; then
    fail "TensorRT $major.$minor takes no uint8 images (8.5 does): export with --set export.input=float_nchw"
fi

case $version in
    *.*) release=$(printf '%s\n' "$version" | cut -d. -f1-3) ;;
    [0-9][0-9][0-9][0-9]) release=$major.$minor.$((version % 10)) ;;
    *) release=$major.$minor.$((version % 100)) ;;
esac

# What the board is: the engine fits no other.
sm=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -n 1 | tr -d ' ' || true)
case $sm in
    [0-9]*.[0-9]*) ;;
    *) sm='' ;;
esac
if [ -z "$sm" ]; then
    case $({ tr '\0' ' ' <"$root/proc/device-tree/compatible"; } 2>/dev/null || true) in
        *tegra210*) sm=5.3 ;;
        *tegra186*) sm=6.2 ;;
        *tegra194*) sm=7.2 ;;
        *tegra234*) sm=8.7 ;;
        *tegra264*) sm=11.0 ;;
    esac
fi
l4t=$(sed -nE 's/.*R([0-9]+).*REVISION: *([0-9.]+).*/\1.\2/p' "$root/etc/nv_tegra_release" 2>/dev/null | head -n 1 || true)
power=$(nvpmodel -q 2>/dev/null | sed -n 's/^NV Power Mode: *//p' | head -n 1 | tr -cd 'A-Za-z0-9_ .-' || true)
clock=$(cat "$root"/sys/class/devfreq/*.gpu/cur_freq "$root"/sys/class/devfreq/*.g[abpv]1[0-9]b/cur_freq 2>/dev/null | head -n 1 | tr -cd 0-9 || true)
gpu=$({ tr -d '\0' <"$root/proc/device-tree/model"; } 2>/dev/null || true)
[ -n "$gpu" ] || gpu=$(nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | head -n 1 || true)
case $gpu in
    *failed*) gpu='' ;;
esac

sha=$(printf '%s\n' "$plain" | text sha256)
case $sha in
    *[!0-9a-f]* | '') fail "the manifest states no sha256 of $file: copy the bundle again" ;;
esac
if command -v sha256sum >/dev/null 2>&1; then
    found=$(sha256sum "$onnx" | cut -c1-64)
    if [ "$found" != "$sha" ]; then
        fail "$onnx is not the file that was packed: its sha256 begins with $(short "$found"), the manifest says $(short "$sha"). Copy the bundle again"
    fi
    sha=$found
fi
name=$(printf '%s\n' "$plain" | text name)
case $name in
    '' | [!A-Za-z0-9]* | *[!A-Za-z0-9._-]*) fail "the manifest gives $file a name that is none: letters, digits, '.', '_' and '-'" ;;
esac
images=${shape##*:}
images=${images%%x*}
small=$(printf '%s' "$sm" | tr -d .)
if [ -z "$engine" ]; then
    engine=$name-$(short "$sha")-trt$release${sm:+-sm$small}${l4t:+-l4t$l4t}${dla:+-dla$dla}
    [ "$images" = 1 ] || engine=$engine-batch$images
    engine=$engine.engine
fi
if [ -z "$workspace" ]; then
    free=$(sed -n 's/^MemAvailable: *\([0-9]*\) kB/\1/p' "$root/proc/meminfo" 2>/dev/null || true)
    workspace=$((${free:-4194304} / 4096))
    [ "$workspace" -le 2048 ] || workspace=2048
    [ "$workspace" -ge 64 ] || workspace=64
fi

# Strongly typed from TensorRT 10 on, where the types stand in the file; a DLA core takes none.
set -- "--onnx=$onnx" "--saveEngine=$engine" "--timingCacheFile=timing-trt$release-sm$small.cache"
if [ "$major" -le 8 ] || { [ "$major" -le 10 ] && [ -n "$dla" ]; }; then
    case $precision in
        float16) set -- "$@" --fp16 ;;
        int8) set -- "$@" --fp16 --int8 ;;
    esac
elif [ "$major" -le 10 ]; then
    set -- "$@" --stronglyTyped
fi
if [ "$major" -eq 8 ] && [ "$minor" -lt 4 ]; then
    set -- "$@" "--workspace=$workspace"
else
    set -- "$@" "--memPoolSize=workspace:$workspace"
fi
[ -z "$dla" ] || set -- "$@" "--useDLACore=$dla" --allowGPUFallback
if [ -z "${batch:-}" ]; then
    set -- "$@" "--minShapes=$shape" "--optShapes=$shape" "--maxShapes=$shape"
fi
set -- "$@" --warmUp=500 --duration=10

printf 'TensorRT %s, %s, input %s, to %s\n' "$release" "$precision" "$shape" "$engine"
if [ "$dry" -eq 1 ]; then
    printf '%s' "$trtexec"
    printf ' %s' "$@"
    printf '\n'
    exit 0
fi
# quoted TEXT: null, or a JSON string of letters, digits and a few signs.
quoted() {
    if [ -n "$1" ]; then printf '"%s"' "$(printf '%s' "$1" | tr -cd 'A-Za-z0-9_:.x -' | cut -c1-80)"; else printf null; fi
}

# same KEY VALUE: whether the document beside the engine says so.
same() {
    grep -qF "\"$1\": $2" "$engine.json" 2>/dev/null
}
if [ -s "$engine" ] && [ "$again" -eq 0 ] && same onnx_sha256 "$(quoted "$sha")" &&
    same tensorrt "$(quoted "$release")" && same sm "$(quoted "$sm")" && same l4t "$(quoted "$l4t")" &&
    same gpu "$(quoted "$gpu")" && same input "$(quoted "$shape")" && same dla_core "${dla:-null}"; then
    printf '%s is there already; -r builds it again\n' "$engine"
    exit 0
fi
log=$engine.log
rm -f "$engine" "$engine.json"
printf 'building takes minutes; the log is %s\n' "$log"
began=$(date +%s)
if ! "$trtexec" "$@" >"$log" 2>&1; then
    grep -E '\[E\]|[Ee]rror|Killed|out of memory' "$log" | head -n 5 >&2 || true
    rm -f "$engine"
    fail "trtexec failed, see $log. When it was killed, memory ran out: close the desktop, add swap, or use a smaller -w" 1
fi
[ -s "$engine" ] || fail "trtexec ended well but wrote no engine; see $log" 1
took=$(($(date +%s) - began))

engine_sha=$(sha256sum "$engine" 2>/dev/null | cut -c1-64 || true)
cat >"$engine.json.tmp" <<TEXT
{"schema": "ontarget.engine/1", "model": $(quoted "$name"), "onnx_sha256": $(quoted "$sha"),
 "engine_sha256": $(quoted "$engine_sha"), "precision": $(quoted "$precision"), "input": $(quoted "$shape"),
 "tensorrt": $(quoted "$release"), "sm": $(quoted "$sm"), "l4t": $(quoted "$l4t"), "gpu": $(quoted "$gpu"),
 "dla_core": ${dla:-null},
 "power_mode": $(quoted "$power"), "gpu_clock_hz": ${clock:-null}, "workspace_mib": $workspace, "seconds": $took}
TEXT
mv "$engine.json.tmp" "$engine.json"
grep -E 'Throughput|Latency:|GPU Compute Time:|H2D Latency|D2H Latency|coefficient of variation' "$log" |
    sed 's/^.*\] *//' || true
printf 'built %s in %s s\n' "$engine" "$took"
