"""Run a bundle on the JVM: short programs, each of which can be pasted into the REPL of its language.

Their input is an empty text, [CLS] and [SEP].
"""

from __future__ import annotations

from collections.abc import Iterator

from bertsym.bundle import Bundle

_INPUT = "The input is an empty text; bertsym tokenize prints the numbers of others."
_DJL = (
    "Needs ai.djl.mxnet:mxnet-engine:0.36.0 of Maven Central, and MXNET_LIBRARY_PATH, the folder of libmxnet.so.",
    _INPUT,
)
_CLOJURE = (
    "Needs the jars of scripts/clients/clojure/pom.xml of bertsym, its folder scripts/clients/clojure/src on the class",
    f"path, and LIBMXNET, the path of libmxnet.so. {_INPUT}",
)


def jvm_snippets(bundle: Bundle) -> Iterator[tuple[str, str, str]]:
    """Yield the title of each program, its language for a highlighter, and its lines; PREFIX is the bundle."""
    yield "Java (Deep Java Library)", "java", "\n".join(_java(bundle))
    yield "Scala (Deep Java Library)", "scala", "\n".join(_scala(bundle))
    yield "Clojure (through MXNet's C API)", "clojure", "\n".join(_clojure(bundle))


def _inputs(bundle: Bundle) -> Iterator[tuple[str, list[int], str, int]]:
    """Yield the name, the numbers and the shape of each input, and the length to which zeros pad it, or 0."""
    signature = bundle.signature
    ids = [signature.special_ids["cls"], signature.special_ids["sep"]]
    length = signature.length or len(ids)
    for tensor in signature.inputs:
        if len(tensor.shape or ()) == 1:  # the number of tokens
            yield tensor.name, [len(ids)], "1", 0
        else:
            numbers = ids if tensor.name == signature.input_names[0] else [0] * len(ids)
            yield tensor.name, numbers, f"1, {length}", length if length > len(ids) else 0


def _java(bundle: Bundle) -> Iterator[str]:
    yield from (f"// {line}" for line in _DJL)
    for name in ("Model", "ndarray.NDArray", "ndarray.NDList", "ndarray.NDManager", "ndarray.types.Shape"):
        yield f"import ai.djl.{name};"
    yield "import ai.djl.training.ParameterStore;"
    yield from (f"import java.{name};" for name in ("nio.file.Path", "util.Arrays", "util.Map"))
    yield ""
    yield 'Path prefix = Path.of("PREFIX").toAbsolutePath();'
    yield 'Model model = Model.newInstance("bert", "MXNet");'
    yield 'model.load(prefix.getParent(), prefix.getFileName().toString(), Map.of("epoch", "0"));'
    yield "NDManager manager = model.getNDManager();"
    yield "NDList inputs = new NDList();"
    for name, numbers, shape, padded in _inputs(bundle):
        array = f"new float[] {{{', '.join(map(str, numbers))}}}"
        array = f"Arrays.copyOf({array}, {padded})" if padded else array
        yield f"NDArray {name} = manager.create({array}, new Shape({shape}));"
        yield f'{name}.setName("{name}");'
        yield f"inputs.add({name});"
    yield "NDList outputs = model.getBlock().forward(new ParameterStore(manager, false), inputs, false);"
    yield "System.out.println(Arrays.toString(outputs.get(0).toFloatArray()));"


def _scala(bundle: Bundle) -> Iterator[str]:
    yield from (f"// {line}" for line in _DJL)
    for name in ("Model", "ndarray.NDList", "ndarray.types.Shape", "training.ParameterStore"):
        yield f"import ai.djl.{name}"
    yield "import java.nio.file.Path"
    yield ""
    yield 'val prefix = Path.of("PREFIX").toAbsolutePath'
    yield 'val model = Model.newInstance("bert", "MXNet")'
    yield 'model.load(prefix.getParent, prefix.getFileName.toString, java.util.Map.of("epoch", "0"))'
    yield "val manager = model.getNDManager"
    yield "val inputs = new NDList()"
    for name, numbers, shape, padded in _inputs(bundle):
        array = f"Array[Float]({', '.join(map(str, numbers))})" + (f".padTo({padded}, 0f)" if padded else "")
        yield f"val {name} = manager.create({array}, new Shape({shape}))"
        yield f'{name}.setName("{name}")'
        yield f"inputs.add({name})"
    yield "val outputs = model.getBlock.forward(new ParameterStore(manager, false), inputs, false)"
    yield 'println(outputs.get(0).toFloatArray.mkString("[", ", ", "]"))'


def _clojure(bundle: Bundle) -> Iterator[str]:
    yield from (f";; {line}" for line in _CLOJURE)
    yield "(require '[mxnet.module :as m])"
    yield "(def batch"
    entries = []
    for name, numbers, shape, padded in _inputs(bundle):
        array = f"(float-array {f'{padded} ' if padded else ''}[{' '.join(map(str, numbers))}])"
        entries.append(f'"{name}" {{:shape [{shape.replace(",", "")}] :values {array}}}')
    yield "  {" + "\n   ".join(entries) + "})"
    yield '(def model (m/load-checkpoint {:prefix "PREFIX" :epoch 0}))'
    yield "(def executor (m/bind model (update-vals batch :shape)))"
    yield "(println (m/forward executor batch))"
