"""Recurrent layers, which carry state from one time step to the next.

The first axis is time, the second the streams that run side by side. ``cont`` (T, N) is 0 where a
stream starts a new sequence and 1 where it continues; it has no gradient.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from netspec.errors import counted, require
from netspec.layers.base import Layer
from netspec.layers.context import Context
from netspec.layers.records import Blob, BottomUse
from netspec.layers.registry import register
from netspec.layers.residuals import substitute
from netspec.layers.shape import Array, Shape, count, text


class _Recurrent(Layer):
    """The base of LSTM and RNN: bottoms and tops, and one scan over time.

    gates: how many numbers of each hidden unit are computed from the bottoms. states: the arrays
    (N, D) that one step passes to the next.
    """

    bottom_use = BottomUse.labels(1)
    gates = 1
    states: tuple[str, ...] = ("h",)

    def exposed(self) -> int:
        """How many states are bottoms and tops."""
        return len(self.states) if self.param.expose_hidden else 0

    def has_static(self) -> bool:
        """Whether there is a bottom that every step reads."""
        return len(self.spec.bottom) > 2 + self.exposed()

    def shape(self, x: Shape, cont: Shape, *more: Shape) -> tuple[Shape, ...]:
        """(T, N, D), and (1, N, D) for each state that is a top."""
        size, exposed = self.param.num_output, self.exposed()
        hidden = f"expose_hidden: {str(self.param.expose_hidden).lower()}"
        least = 2 + exposed
        require(size > 0, "needs num_output")
        require(
            least <= 2 + len(more) <= least + 1,
            f"has {counted(2 + len(more), 'bottom')} but needs {least}, or {least + 1} "
            f"with a static one ({hidden})",
        )
        require(
            self.num_tops == 1 + exposed,
            f"has {counted(self.num_tops, 'top')} but needs {1 + exposed} ({hidden})",
        )
        require(len(x) > 2, f"x is {text(x)}, but (time steps, streams, ...) takes 3 axes or more")
        require(cont == x[:2], f"cont is {text(cont)} but must be {text(x[:2])} for x {text(x)}")
        if self.has_static():
            require(
                len(more[0]) > 1 and more[0][0] == x[1],
                f"the static bottom is {text(more[0])} but must be ({x[1]}, ...) of 2 axes or more",
            )
        state = (1, x[1], size)
        for given in more[len(more) - exposed :]:
            require(given == state, f"a hidden state is {text(given)} but must be {text(state)}")
        return ((*x[:2], size), *(state,) * exposed)

    def weights(self, name: str, x: Shape, more: tuple[Shape, ...]) -> dict[str, Blob]:
        """The weights of the bottoms, and the bias; ``name`` as in ``W_xc``."""
        outputs, filler = self.gates * self.param.num_output, self.param.weight_filler
        blobs = {
            f"W_x{name}": Blob((outputs, count(x[2:])), filler, products=count(x[:2])),
            f"b_{name}": Blob((outputs,), self.param.bias_filler, is_offset=True),
        }
        if self.has_static():
            # Multiplied once a stream, not once a step.
            static = Blob((outputs, count(more[0][1:])), filler, products=x[1])
            blobs[f"W_x{name}_static"] = static
        return blobs

    def inputs(self, ctx: Context, name: str, x: Array, more: tuple[Array, ...]) -> Array:
        """The bottoms' part of all gates at all steps, (T, N, gates D)."""
        top = _product(x.reshape(*x.shape[:2], count(x.shape[2:])), ctx.blobs[f"W_x{name}"])
        top = top + jnp.broadcast_to(ctx.blobs[f"b_{name}"], top.shape)
        if not self.has_static():
            return top
        static = _product(
            more[0].reshape(len(more[0]), count(more[0].shape[1:])), ctx.blobs[f"W_x{name}_static"]
        )
        return top + jnp.broadcast_to(static, top.shape)

    def carried(self, x: Shape, cont: Shape, *more: Shape) -> dict[str, Shape]:
        """The last step's states, (N, D) each, unless they are tops."""
        hidden = () if self.exposed() else self.states
        return dict.fromkeys(hidden, (x[1], self.param.num_output))

    def first(self, ctx: Context, more: tuple[Array, ...]) -> tuple[Array, ...]:
        """The states before the first step, (N, D) each; no gradient reaches them."""
        if self.exposed():
            given = more[len(more) - self.exposed() :]
            return tuple(jax.lax.stop_gradient(state[0]) for state in given)
        return tuple(ctx.carried[name] for name in self.states)

    def seen(self, ctx: Context, cont: Array, *names: str) -> tuple[Array, ...]:
        """``cont``, and what the steps of the forward pass kept, (T, N, ...), if it is over."""
        kept = [ctx.left.buffers()[name] for name in names] if ctx.left is not None else []
        return jax.lax.stop_gradient(cont), *kept

    def tops_of(self, ctx: Context, top: Array, last: tuple[Array, ...]) -> tuple[Array, ...]:
        """The layer's tops, from the results of the scan; last states are tops too, or carried."""
        if self.exposed():
            return (top, *(jax.lax.stop_gradient(state[None]) for state in last))
        for name, state in zip(self.states, last, strict=True):
            ctx.carry(name, state)
        return (top,)

    def describe(self) -> str:
        parts = ["static input"] if self.has_static() else []
        parts += ["hidden state exposed"] if self.exposed() else []
        return ", ".join(parts)


@register(param="recurrent_param", bottoms=(2, 5), tops=(1, 3))
class LSTM(_Recurrent):
    """Long short-term memory: a cell ``c`` that gates write to, forget and read.

    x (T, N, ...), cont (T, N), and an optional static (N, ...) that every step reads -> h (T, N, D)
    with D = ``num_output``. ``expose_hidden`` adds bottoms h_0, c_0 and tops h_T, c_T, all
    (1, N, D). A step makes i, f, o = sigmoid and g = tanh of W_xc x + b_c + W_xc_static static +
    W_hc (cont h), then c = cont f c + i g and h = o tanh(c).
    Blobs: W_xc (4 D, C), b_c (4 D), W_xc_static (4 D, S) if there is a static bottom, W_hc
    (4 D, D). Their rows are those of i, f, o, g in turn.
    Without ``expose_hidden`` a run continues from the last step of the run before; set cont to 0
    where a sequence begins. No gradient passes through h_0, c_0, h_T and c_T, nor from run to run.
    Caffe: ``lstm_layer.cpp``, ``recurrent_layer.cpp``.
    """

    formula = "c = f c + i g, y = o tanh(c), with gates of x and the last y"
    gates = 4
    states = ("h", "c")

    def blobs(self, x: Shape, cont: Shape, *more: Shape) -> dict[str, Blob]:
        size = self.param.num_output
        hidden = Blob((4 * size, size), self.param.weight_filler, products=count(x[:2]))
        return {**self.weights("c", x, more), "W_hc": hidden}

    def apply(self, ctx: Context, x: Array, cont: Array, *more: Array) -> tuple[Array, ...]:
        """Multiply the bottoms of all steps at once, then scan."""
        hidden = ctx.blobs["W_hc"]

        def step(
            states: tuple[Array, ...], seen: tuple[Array, ...]
        ) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
            (h, c), (entered, continues, *forward) = states, seen
            gates = entered + _product(_per_unit(continues, h) * h, hidden)
            gates = substitute(forward[0], gates) if forward else gates
            c, h = _unit(c, gates, continues, *forward[1:])
            return (h, c), (h, gates, c)

        seen = self.inputs(ctx, "c", x, more), *self.seen(ctx, cont, "gates", "c")
        last, (top, gates, cells) = jax.lax.scan(step, self.first(ctx, more), seen)
        ctx.buffers.update(gates=gates, c=cells)
        return self.tops_of(ctx, top, last)


@register(param="recurrent_param", bottoms=(2, 4), tops=(1, 2))
class RNN(_Recurrent):
    """A plain recurrent layer: the hidden state is a tanh of the bottoms and of itself.

    x (T, N, ...), cont (T, N), and an optional static (N, ...) that every step reads -> o (T, N, D)
    with D = ``num_output``. ``expose_hidden`` adds bottom h_0 and top h_T, both (1, N, D). A step
    makes h = tanh(W_xh x + b_h + W_xh_static static + W_hh (cont h)) and o = tanh(W_ho h + b_o).
    Blobs: W_xh (D, C), b_h (D), W_xh_static (D, S) if there is a static bottom, W_hh (D, D), W_ho
    (D, D), b_o (D). Where a run starts, and what has no gradient, is as in LSTM.
    Caffe: ``rnn_layer.cpp``, ``recurrent_layer.cpp``.
    """

    formula = "h = tanh(w x + u h + b), y = tanh(v h + c)"

    def blobs(self, x: Shape, cont: Shape, *more: Shape) -> dict[str, Blob]:
        size = self.param.num_output
        square = Blob((size, size), self.param.weight_filler, products=count(x[:2]))
        return {
            **self.weights("h", x, more),
            "W_hh": square,
            "W_ho": square,
            "b_o": Blob((size,), self.param.bias_filler, is_offset=True),
        }

    def apply(self, ctx: Context, x: Array, cont: Array, *more: Array) -> tuple[Array, ...]:
        """Multiply the bottoms of all steps at once, scan, then multiply all states at once."""
        hidden = ctx.blobs["W_hh"]

        def step(
            states: tuple[Array, ...], seen: tuple[Array, ...]
        ) -> tuple[tuple[Array, ...], tuple[Array, Array]]:
            (h,), (entered, continues, *forward) = states, seen
            sums = entered + _product(_per_unit(continues, h) * h, hidden)
            sums = substitute(forward[0], sums) if forward else sums
            h = jnp.tanh(sums)
            return (h,), (h, sums)

        seen = self.inputs(ctx, "h", x, more), *self.seen(ctx, cont, "sums")
        last, (states, sums) = jax.lax.scan(step, self.first(ctx, more), seen)
        ctx.buffers["sums"] = sums
        top = _product(states, ctx.blobs["W_ho"])
        top = ctx.kept("outputs", top + jnp.broadcast_to(ctx.blobs["b_o"], top.shape))
        return self.tops_of(ctx, jnp.tanh(top), last)


@register(bottoms=3, tops=2)
class LSTMUnit(Layer):
    """One step of an LSTM, as its nets were written out before there was one.

    Cell c (1, N, D), gates (1, N, 4 D) in the order i, f, o, g before their sigmoids and tanh, cont
    (1, N) -> the next c and h, (1, N, D) both. Caffe: ``lstm_unit_layer.cpp``.
    """

    formula = "c = f c + i g, h = o tanh(c)"
    bottom_use = BottomUse(no_gradient=frozenset({2}), unforced=frozenset({2}))

    def shape(self, c: Shape, gates: Shape, cont: Shape) -> tuple[Shape, ...]:
        """The cell's shape, twice."""
        require(len(c) == 3 and c[0] == 1, f"the cell is {text(c)} but must be (1, streams, units)")
        wanted = (1, c[1], 4 * c[2])
        require(gates == wanted, f"gates are {text(gates)} but must be {text(wanted)}")
        require(cont == c[:2], f"cont is {text(cont)} but must be {text(c[:2])}")
        return c, c

    def apply(self, ctx: Context, c: Array, gates: Array, cont: Array) -> tuple[Array, ...]:
        # Backward reads the next cell where Caffe put it: in the top.
        shown = None if ctx.left is None else ctx.left.top(0)
        return _unit(c, gates, jax.lax.stop_gradient(cont), shown)


def _product(rows: Array, weight: Array) -> Array:
    """(..., inputs) times the transpose of (outputs, inputs)."""
    return rows @ weight.T


def _per_unit(cont: Array, like: Array) -> Array:
    """``cont`` (...) as (..., D)."""
    return jnp.broadcast_to(cont[..., None], like.shape)


def _unit(c: Array, gates: Array, cont: Array, shown: Array | None = None) -> tuple[Array, Array]:
    """The next cell and hidden state; the cell starts from 0 where ``cont`` is 0, even from NaN.

    shown: what stands for the next cell, whose gradient it has.
    """
    *sigmoids, g = jnp.split(gates, 4, axis=-1)
    i, f, o = map(jax.nn.sigmoid, sigmoids)
    continues = _per_unit(cont, f)
    c = jnp.where(continues == 0, 0, continues * f) * c + i * jnp.tanh(g)
    c = c if shown is None else substitute(shown, c)
    return c, o * jnp.tanh(c)
