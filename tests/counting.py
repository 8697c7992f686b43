"""Layers that count what goes through them."""


class CountingLayers:
    """The model's ``Layers``, and a note of each state that goes through them."""

    def __init__(self, layers):
        self._layers = layers
        self.one_pass, self.deferred = layers.one_pass, layers.deferred
        self.lengths = []
        self.runs = 0
        self.dtypes = set()

    @classmethod
    def around(cls, llm):
        """Put them round the layers of a loaded model."""
        counting = cls(llm._model.layers)
        llm._model.layers = counting
        return counting

    def run(self, states, caches):
        self.runs += 1
        self.lengths += [state.shape[1] for state in states]
        self.dtypes |= {state.dtype for state in states}
        moved = self._layers.run(states, caches)
        self.dtypes |= {state.dtype for state in moved}
        return moved

    def close(self):
        self._layers.close()
