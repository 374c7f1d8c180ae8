"""Write a bundle's parameters with Gluon's save_parameters, for GluonNLP's export."""

from __future__ import annotations

from gluonnlp_common import bert_model, mx
from job import read_job, write_result


def main() -> None:
    job = read_job()
    net = bert_model(job["config"])
    net.initialize()
    net(mx.nd.zeros((1, 2)), mx.nd.zeros((1, 2)), mx.nd.ones(1))  # infers the shapes of the layers
    weights = mx.nd.load(f"{job['prefix']}-0000.params")
    for name, parameter in net.collect_params().items():
        parameter.set_data(weights[f"arg:{name}"])
    net.save_parameters(job["out"])
    write_result(out=job["out"])


if __name__ == "__main__":
    main()
