"""PyTorch, eager or compiled, contiguous or channels last."""

from __future__ import annotations

from tests.bench.workers.meter import Meter


def main() -> None:
    """Build the net and serve its train step."""
    meter = Meter()
    import torch
    from torch.nn import functional

    from tests.bench.cases import Workload
    from tests.bench.nets import make_net
    from tests.bench.values import load_values

    torch.set_num_threads(meter.threads)
    meter.imported()
    net = make_net(Workload(**meter.workload))
    load_values(net, dict(meter.weights()))
    trained = set(meter.trained)
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(name in trained)
    inputs, labels = (torch.from_numpy(a) for a in meter.batch())
    if meter.options["channels_last"] and inputs.ndim == 4:
        net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        inputs = inputs.contiguous(memory_format=torch.channels_last)
    tuned = [p for p in net.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(tuned, lr=meter.learning_rate)

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(net(x).flatten(0, -2), y.flatten())

    compute = torch.compile(loss_of) if meter.options["compile"] else loss_of

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        loss = compute(inputs, labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return loss.item()

    meter.serve(step, torch.__version__)


if __name__ == "__main__":
    main()
