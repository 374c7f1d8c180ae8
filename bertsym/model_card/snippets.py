"""How a bundle is loaded, as short programs in several languages."""

from __future__ import annotations

from collections.abc import Iterator

from bertsym.bundle import Bundle
from bertsym.model_card.jvm_snippets import jvm_snippets

#: kind of task -> arguments of ``predict`` for a text, and for a pair of texts
_ARGUMENTS = {
    "qa": ('["who sat?"], ["the cat sat"]',) * 2,
    "masked_lm": ('["the cat [MASK]"]',) * 2,
}


def bundle_snippets(bundle: Bundle) -> Iterator[tuple[str, str, str]]:
    """Yield the title of each program, its language for a highlighter, and its lines; PREFIX is the bundle."""
    signature = bundle.signature
    pair = ' --text-pair "..."' if signature.pair else ""
    yield "Command line", "sh", f'bertsym predict PREFIX --text "..."{pair}'
    single, both = _ARGUMENTS.get(signature.task or "", ('["a text"]', '["a text"], ["its second text"]'))
    texts = both if signature.pair else single
    yield "Python", "python", f'import bertsym\n\nprint(bertsym.load("PREFIX").predict({texts}))'
    yield "Python, with mxnet alone", "python", _module(bundle)
    yield "C, C++ (c_predict_api.h)", "c", _c(bundle)
    yield from jvm_snippets(bundle)


def _sizes(bundle: Bundle) -> list[tuple[str, bool]]:
    """The inputs by name, and whether each has an element for each token."""
    return [(tensor.name, len(tensor.shape or ()) > 1) for tensor in bundle.signature.inputs]


def _module(bundle: Bundle) -> str:
    shapes = ", ".join(f"{name}=({'1, n' if by_token else '1,'})" for name, by_token in _sizes(bundle))
    names = ", ".join(f'"{name}"' for name, _ in _sizes(bundle))
    return "\n".join(
        [
            "import json",
            "",
            "import mxnet as mx",
            "",
            "# inputs.jsonl: bertsym tokenize PREFIX texts.tsv",
            'inputs = json.loads(open("inputs.jsonl").readline())',
            *_padding(bundle),
            f"arrays = {{name: mx.nd.array([inputs[name]]) for name in ({names})}}",
            'symbol, arg_params, aux_params = mx.model.load_checkpoint("PREFIX", 0)',
            f'executor = symbol.simple_bind(mx.cpu(), grad_req="null", {shapes})',
            "executor.copy_params_from(arg_params, aux_params)",
            "print(executor.forward(is_train=False, **arrays)[0].asnumpy())",
        ]
    )


def _padding(bundle: Bundle) -> list[str]:
    """Set n, the number of tokens; pad the inputs of a symbol that takes a single length."""
    signature = bundle.signature
    if signature.length is None:
        return ['n = len(inputs["data0"])']
    lines = [f"n = {signature.length}"]
    for name, by_token in _sizes(bundle):
        if by_token:
            padding = signature.pad_id if name == signature.input_names[0] else 0
            lines.append(f'inputs["{name}"] += [{padding}] * (n - len(inputs["{name}"]))')
    return lines


def _c(bundle: Bundle) -> str:
    inputs = _sizes(bundle)
    starts = [0]
    for _, by_token in inputs:
        starts.append(starts[-1] + (2 if by_token else 1))
    length = "n" if bundle.signature.length is None else str(bundle.signature.length)
    return "\n".join(
        [
            "/* symbol: the text of PREFIX-symbol.json; params, size: the bytes of PREFIX-0000.params */",
            f"const char *names[] = {{{', '.join(chr(34) + name + chr(34) for name, _ in inputs)}}};",
            f"const mx_uint starts[] = {{{', '.join(map(str, starts))}}};",
            f"const mx_uint shapes[] = {{{', '.join(f'1, {length}' if by_token else '1' for _, by_token in inputs)}}};",
            "PredictorHandle model;",
            f"MXPredCreate(symbol, params, size, 1, 0, {len(inputs)}, names, starts, shapes, &model);",
            *(
                f'MXPredSetInput(model, "{name}", {name}, {length if by_token else 1});  /* float */'
                for name, by_token in inputs
            ),
            "MXPredForward(model);",
            "MXPredGetOutput(model, 0, output, output_size);",
        ]
    )
