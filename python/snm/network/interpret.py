"""The one loop over the steps of a program; whoever does something else with them subclasses it."""

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
    >>> class Told(Interpreter):
    ...     def call(self, call, values): return f"{call.name}({', '.join(call.reads)})"
    ...     def fire(self, fire, values): print("neurons driven by", values[fire.drive])
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    >>> net = convert(model, torch.ones(8, 4))
    >>> told = Told(net.program, net.model)
    >>> values = told.execute_static({net.program.images: torch.ones(1, 4)})
    >>> _ = told.execute_temporal(values)
    neurons driven by model_0(images)
    >>> told.execute_tail({net.program.neurons[0].name: "their mean"})[net.program.output]
    'model_2(model_1)'
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
            start: number of the first step to execute.
            end: number of the step before which to stop; None for the end.
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
        """Executes one step and, but for the tail, frees what no later step reads."""
        if isinstance(step, Fire):
            self.fire(step, values)
        elif isinstance(step, Call):
            values[step.name] = self.call(step, values)
        elif isinstance(step, Repeat):
            values[step.name] = self.repeat(step, values)
        else:
            values[step.name] = self.pool(step, values)
        # The tail has steps of the other parts once more, on the mean, and frees nothing.
        if self.part != "tail":
            self.free(step, values)

    def call(self, call: Call, values: Values) -> Any:
        """The result of an operation of the model."""
        return call.compute(self.model, values)

    def repeat(self, step: Repeat, values: Values) -> Any:
        """A value that is constant in time, in the form in which steps over time read it."""
        return values[step.value]

    def pool(self, step: RunningMax, values: Values) -> Any:
        """What a max pooling makes of the spikes or amplitudes that it reads."""
        raise NotImplementedError

    def fire(self, fire: Fire, values: Values) -> None:
        """Adds what a layer of neurons sends, under ``fire.name``, ``fire.spikes`` or both."""
        raise NotImplementedError

    def free(self, step: Step, values: Values) -> None:
        """Drops the values that a step is the last to read."""
        for name in self.program.frees[step.name]:
            values.pop(name, None)
