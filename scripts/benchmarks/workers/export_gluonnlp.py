"""Export like GluonNLP's script: load parameters into a hybridized BERTModel, run one forward pass, export."""

from __future__ import annotations

from gluonnlp_common import bert_model, mx, settings
from job import read_job, write_result


def main() -> None:
    job = read_job()
    net = bert_model(job["config"])
    net.load_parameters(job["params"], ctx=mx.cpu())
    net.hybridize(static_alloc=True, static_shape=True)
    ids = mx.nd.arange(2 * 64).reshape((2, 64))
    for output in net(ids, mx.nd.zeros((2, 64)), mx.nd.array([64, 32])):
        output.wait_to_read()
    net.export(job["out"], epoch=0)
    write_result(settings=settings())


if __name__ == "__main__":
    main()
