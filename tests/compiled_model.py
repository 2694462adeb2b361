"""A model under `torch.compile`, for a process without the run-time check of annotations, which no compiler follows."""

import torch
from torch import Tensor, nn

import tidegate as tg


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.recurrent = tg.GRU(3, 8, num_layers=2, bidirectional=True)
        self.head = nn.Linear(16, 2)

    def forward(self, x: Tensor, **given) -> Tensor:
        result: Tensor = self.head(self.recurrent(x, **given)[0])
        return result


def gradients(model: nn.Module, y: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(y.square().sum(), list(model.parameters())))


def main() -> None:
    torch.manual_seed(0)
    x, model = torch.randn(6, 4, 3), Model()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    for given in (
        {},
        {"mask": torch.rand(6, 4) < 0.7},
        {"lengths": torch.tensor([6, 0, 3, 5])},
        {"pins": tg.Pins(update=0.0, steps=slice(2, 4))},
        {"reset_at": torch.rand(6, 4) < 0.3},
    ):
        torch.compiler.reset()  # a function may be compiled anew eight times
        y, expected = compiled(x, **given), model(x, **given)
        torch.testing.assert_close(y, expected)
        torch.testing.assert_close(gradients(model, y), gradients(model, expected))
        with torch.no_grad():
            torch.testing.assert_close(compiled(x, **given), expected)
        print("one graph:", *given)
    dropouts = tg.Dropouts(state=0.2, inputs=0.2, candidate=0.2, zoneout=0.2, weight=0.2)
    dropping = tg.GRU(3, 8, recurrent_dropout=dropouts, layer_norm=True)
    compiled_layer = torch.compile(dropping, fullgraph=True, backend="eager")
    outputs = []
    for call in (compiled_layer, dropping):
        torch.manual_seed(1)
        outputs.append(call(x)[0])
    torch.testing.assert_close(*outputs)
    print("one graph: dropouts")
    torch.compiler.reset()
    zoned = tg.GRU(3, 8, recurrent_dropout=tg.Dropouts(zoneout=0.2)).eval()
    y, expected = torch.compile(zoned, fullgraph=True, backend="aot_eager")(x)[0], zoned(x)[0]
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(gradients(zoned, y), gradients(zoned, expected))
    print("one graph: zoneout in evaluation")
    try:
        compiled(x, lengths=torch.tensor([6, 7, 0, 0]))
    except RuntimeError as error:
        print(error)
    gru, y = tg.GRU(3, 8), torch.randn(6, 4, 8)

    def loss(parameters: dict[str, Tensor]) -> Tensor:
        found: Tensor = torch.func.functional_call(gru, parameters, (x,))[0]
        return (found * y).sum()

    parameters = {name: one.detach() for name, one in gru.named_parameters()}
    function = torch.func.grad(loss)
    torch.testing.assert_close(torch.compile(function, backend="aot_eager")(parameters), function(parameters))
    print("gradients of a function")
    exported = torch.export.export(model.eval(), (x,), strict=False)
    assert "tidegate.recurrence" in str(exported.graph)
    torch.testing.assert_close(exported.module()(x), model(x))
    print("exported")


if __name__ == "__main__":
    main()
