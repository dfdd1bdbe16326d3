"""The one loop over the steps of a program; what does something else with them is a subclass."""

from typing import Any, Literal

from torch import nn

from .program import Call, Fire, Program, Repeat, RunningMax, Step

Values = dict[str, Any]
"""Results of steps, by their names in the program."""

Part = Literal["static", "temporal", "tail"]
"""The part of a program that a step is in, by the names that :class:`Program` has for them."""


class Interpreter:
    """Executes the steps of a program in order, each by the method of its kind.

    Like :class:`torch.fx.Interpreter`: a subclass says what a kind of step does by overriding its
    method, and what happens around every step by overriding :meth:`execute` or :meth:`free`.

    Args:
        program: what to execute.
        model: the modules that it calls.

    >>> import torch
    >>> from snm import convert
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    >>> class Names(Interpreter):
    ...     def call(self, call, values): return f"{call.name} of {', '.join(call.reads)}"
    ...     def fire(self, fire, values): values[fire.name] = f"spikes of {values[fire.drive]}"
    >>> net = convert(model, torch.rand(32, 4))
    >>> names = Names(net.program, net.model)
    >>> values = names.execute_static({net.program.images: "images"})
    >>> neurons, output = net.program.neurons[0].name, net.program.output
    >>> names.execute_temporal(values)[neurons]
    'spikes of model_0 of input_1'
    >>> names.execute_tail({neurons: "their mean"})[output]
    'model_2 of model_1'
    """

    def __init__(self, program: Program, model: nn.Module) -> None:
        self.program = program
        self.model = model
        self.part: Part = "static"

    def execute_static(self, values: Values) -> Values:
        """Executes what comes before the first neurons; adds to ``values`` and returns them."""
        self.part = "static"
        for call in self.program.static:
            self.execute(call, values)
        return values

    def execute_temporal(self, values: Values, start: int = 0, end: int | None = None) -> Values:
        """Executes what lies between the first and the last neurons.

        Args:
            values: what was made before; results are added, and freed once nothing reads them.
            start, end: only the steps from the one to before the other, None for all.
        """
        self.part = "temporal"
        for step in self.program.temporal[start:end]:
            self.execute(step, values)
        return values

    def execute_tail(self, values: Values) -> Values:
        """Executes what comes behind the last neurons; adds to ``values`` and returns them.

        Args:
            values: what is constant in time, and the mean output of the neurons that are read out.
        """
        self.part = "tail"
        for call in self.program.tail:
            self.execute(call, values)
        return values

    def execute(self, step: Step, values: Values) -> None:
        """Executes one step and frees what no later step reads."""
        if isinstance(step, Fire):
            self.fire(step, values)
        elif isinstance(step, Call):
            values[step.name] = self.call(step, values)
        elif isinstance(step, Repeat):
            values[step.name] = self.repeat(step, values)
        else:
            values[step.name] = self.pool(step, values)
        self.free(step, values)

    def call(self, call: Call, values: Values) -> Any:
        """The result of an operation of the model."""
        return call.run(self.model, values)

    def repeat(self, step: Repeat, values: Values) -> Any:
        """A value that is constant in time, as steps that change over time read it."""
        return values[step.value]

    def pool(self, step: RunningMax, values: Values) -> Any:
        """What a max pooling makes of the spikes, or the amplitudes, that it reads."""
        raise NotImplementedError

    def fire(self, fire: Fire, values: Values) -> None:
        """Adds what a layer of neurons sends: ``fire.name``, ``fire.spikes`` or both."""
        raise NotImplementedError

    def free(self, step: Step, values: Values) -> None:
        """Forgets the values that a step is the last to read."""
        for name in self.program.frees.get(step.name, ()):
            values.pop(name, None)
