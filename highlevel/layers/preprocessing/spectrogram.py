"""Sounds as pictures: how strong each frequency is at each time."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from highlevel import config, ops
from highlevel.errors import ArgumentError, ShapeError

from ..arguments import check_floating, one_of, whole
from ..base import Layer

# Windows that are sums of cosines, by their coefficients.
COSINES: dict[str, tuple[float, ...]] = {
    "boxcar": (1.0,),
    "hann": (0.5, 0.5),
    "hamming": (0.54, 0.46),
    "blackman": (0.42, 0.50, 0.08),
    "nuttall": (0.3635819, 0.4891775, 0.1365995, 0.0106411),
    "blackmanharris": (0.35875, 0.48829, 0.14128, 0.01168),
    "flattop": (0.21557895, 0.41663158, 0.277263158, 0.083578947, 0.006947368),
}
WINDOWS = (*COSINES, "bartlett", "cosine")


def window_values(layer: Layer, window: Any, length: int, periodic: bool) -> np.ndarray[Any, Any]:
    """A window by its name, or as it was given; periodic ones are those of one more element, without the last."""
    if window is None:
        return np.ones(length)
    if not isinstance(window, str):
        values = np.asarray(window, "float64")
        if values.shape != (length,):
            raise ShapeError(f"{layer.name}: the window does not fit", got=values.shape, expected=f"({length},)")
        return values
    if length == 1:
        return np.ones(1)
    span = length if periodic else length - 1
    place = np.arange(length) / span
    if window == "bartlett":
        return 1.0 - np.abs(2.0 * place - 1.0)
    if window == "cosine":
        return np.sin(np.pi * (np.arange(length) + 0.5) / (span + 1))
    parts = COSINES[window]
    return np.asarray(sum((-1) ** k * part * np.cos(2 * np.pi * k * place) for k, part in enumerate(parts)))


class STFTSpectrogram(Layer):
    """The frequencies in short pieces of sounds, by convolutions whose kernels may be trained.

    Arguments:
        mode: "log", "magnitude", "psd" (power), "real", "imag", "angle", or "stft" (real and imaginary parts)
        frame_length: the length of a piece
        frame_step: from one piece to the next; None: half a piece
        fft_length: gives fft_length // 2 + 1 frequencies; None: the next power of 2
        window: the name of a window ("hann", "hamming", "blackman" …), its values, or None
        periodic: whether the window is periodic, not symmetric
        scaling: "density", "spectrum" or None: by which sum of the window to divide
        padding: "valid" or "same"
        expand_dims: whether channels stay an axis
        data_format: "channels_last" or "channels_first"

    Input shape: (batch, time, channels), or (batch, channels, time)

    Output shape: (batch, pieces, channels · frequencies), with expand_dims (batch, pieces, frequencies, channels)

    >>> import numpy as np
    >>> import highlevel as hl
    >>> hl.layers.STFTSpectrogram(frame_length=8)(np.ones((1, 32, 1), "float32")).shape
    (1, 7, 5)
    """

    def __init__(
        self,
        mode: str = "log",
        frame_length: int = 256,
        frame_step: int | None = None,
        fft_length: int | None = None,
        window: Any = "hann",
        periodic: bool = False,
        scaling: str | None = "density",
        padding: str = "valid",
        expand_dims: bool = False,
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.mode = one_of(self, mode, "mode", ("log", "magnitude", "psd", "real", "imag", "angle", "stft"))
        self.frame_length = whole(self, frame_length, "frame_length")
        self.frame_step = frame_step
        if frame_step is not None and not 1 <= frame_step <= frame_length:
            raise ArgumentError(f"{self.name}: pieces leave gaps", got=frame_step, expected=f"1 … {frame_length}")
        self.fft_length = fft_length
        if fft_length is not None and fft_length < frame_length:
            raise ArgumentError(f"{self.name}: fft_length is too short", got=fft_length, expected=f"≥ {frame_length}")
        self.window = one_of(self, window, "window", WINDOWS) if isinstance(window, str) else window
        self.periodic = periodic
        self.scaling = None if scaling is None else one_of(self, scaling, "scaling", ("density", "spectrum"))
        self.padding = one_of(self, padding, "padding", ("valid", "same"))
        self.expand_dims = expand_dims
        self.data_format = config.data_format(data_format)

    def check_input(self, input_shape: Any) -> None:
        if len(input_shape) != 3:
            last = self.data_format == "channels_last"
            raise ShapeError(
                f"{self.name}: the input has the wrong rank",
                got=f"shape {tuple(input_shape)}",
                expected="(batch, time, channels)" if last else "(batch, channels, time)",
                hint=("x[..., None]" if last else "x[:, None]") + " adds the channel axis"
                if len(input_shape) == 2
                else None,
            )

    def build(self, input_shape: Any) -> None:
        length = self.fft_length or 2 ** math.ceil(math.log2(self.frame_length))
        window = window_values(self, self.window, self.frame_length, self.periodic)[:, None, None]
        if self.window is not None and self.scaling is not None:
            size = np.sqrt(np.sum(window**2)) if self.scaling == "density" else np.sum(np.abs(window))
            window = window / size
        turn = np.arange(self.frame_length)[:, None, None] * np.arange(length // 2 + 1) / length
        shape = (self.frame_length, 1, length // 2 + 1)
        if self.mode != "imag":
            self.real_kernel = self.add_weight(shape, np.cos(-2 * np.pi * turn) * window, name="real_kernel")
        if self.mode != "real":
            self.imag_kernel = self.add_weight(shape, np.sin(-2 * np.pi * turn) * window, name="imag_kernel")

    def _convolved(self, x: Any, kernel: Any) -> Any:
        """(batch, channels, pieces, frequencies)."""
        batch, channels, time = x.shape
        y = ops.conv(
            ops.reshape(x, (batch * channels, time, 1)),
            ops.cast(kernel, x.dtype),
            self.frame_step or self.frame_length // 2 or 1,
            self.padding,
            data_format="channels_last",
        )
        return ops.reshape(y, (batch, channels, *y.shape[1:]))

    def call(self, inputs: Any) -> Any:
        check_floating(self, inputs)
        x = ops.swapaxes(inputs, 1, 2) if self.data_format == "channels_last" else inputs
        real = None if self.mode == "imag" else self._convolved(x, self.real_kernel)
        imaginary = None if self.mode == "real" else self._convolved(x, self.imag_kernel)
        return self._arranged(self._measured(real, imaginary))

    def _measured(self, real: Any, imaginary: Any) -> Any:
        if self.mode in ("real", "imag"):
            return real if self.mode == "real" else imaginary
        if self.mode == "angle":
            return ops.arctan2(imaginary, real)
        if self.mode == "stft":
            return ops.concatenate([real, imaginary], axis=-1)
        power = ops.square(real) + ops.square(imaginary)
        if self.mode == "psd":
            return power + ops.pad(power[..., 1:-1], ((0, 0), (0, 0), (0, 0), (1, 1)))
        magnitude = ops.sqrt(ops.maximum(power, config.epsilon()))
        return magnitude if self.mode == "magnitude" else ops.log(ops.maximum(magnitude, config.epsilon()))

    def _arranged(self, y: Any) -> Any:
        """From (batch, channels, pieces, frequencies) to the layout that is wanted."""
        batch, channels, pieces, frequencies = y.shape
        last = self.data_format == "channels_last"
        if self.expand_dims:
            return ops.transpose(y, (0, 2, 3, 1)) if last else y
        order = (0, 2, 1, 3) if last else (0, 1, 3, 2)
        shape = (batch, pieces, channels * frequencies) if last else (batch, channels * frequencies, pieces)
        return ops.reshape(ops.transpose(y, order), shape)


class MelSpectrogram(Layer):
    """The strength of frequencies as we hear them, in bands that are even on the mel scale, over time.

    Arguments:
        fft_length: the length of a piece, with zeros
        sequence_stride: from one piece to the next
        sequence_length: the length of a piece; None: fft_length
        window: "hann", "hamming", its values, or None
        sampling_rate: samples per second
        num_mel_bins: the number of bands
        min_freq, max_freq: the lowest and the highest frequency, in hertz; None: half of the sampling rate
        power_to_db: whether to give decibels
        top_db: how far below the loudest of the batch values may lie; what is lower is raised
        mag_exp: 1 for magnitude, 2 for power
        min_power, ref_power: for decibels, the least power, and that of 0 dB

    Input shape: (batch, time), or (time,)

    Output shape: (batch, num_mel_bins, pieces)

    >>> import numpy as np
    >>> import highlevel as hl
    >>> layer = hl.layers.MelSpectrogram(fft_length=64, sequence_stride=32, num_mel_bins=8)
    >>> layer(np.ones((1, 320), "float32")).shape
    (1, 8, 11)
    """

    autocast = False

    def __init__(
        self,
        fft_length: int = 2048,
        sequence_stride: int = 512,
        sequence_length: int | None = None,
        window: Any = "hann",
        sampling_rate: int = 16000,
        num_mel_bins: int = 128,
        min_freq: float = 20.0,
        max_freq: float | None = None,
        power_to_db: bool = True,
        top_db: float = 80.0,
        mag_exp: float = 2.0,
        min_power: float = 1e-10,
        ref_power: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.fft_length = whole(self, fft_length, "fft_length")
        self.sequence_stride = whole(self, sequence_stride, "sequence_stride")
        self.sequence_length = whole(self, sequence_length or fft_length, "sequence_length")
        if self.sequence_length > self.fft_length:
            raise ArgumentError(
                f"{self.name}: pieces are too long", got=self.sequence_length, expected=f"≤ fft_length, {fft_length}"
            )
        self.window = window
        self.sampling_rate = sampling_rate
        self.num_mel_bins = whole(self, num_mel_bins, "num_mel_bins")
        self.min_freq = min_freq
        self.max_freq = max_freq or int(sampling_rate / 2)
        self.power_to_db = power_to_db
        self.top_db = top_db
        self.mag_exp = mag_exp
        self.min_power = min_power
        self.ref_power = ref_power

    def check_input(self, input_shape: Any) -> None:
        if len(input_shape) not in (1, 2):
            raise ShapeError(
                f"{self.name}: the input has the wrong rank",
                got=f"shape {tuple(input_shape)}",
                expected="(batch, time), or (time,)",
                hint="one channel: x[..., 0]" if len(input_shape) == 3 else None,
            )

    def call(self, inputs: Any) -> Any:
        wide = self.compute_dtype if self.compute_dtype in ("float32", "float64") else "float32"
        real, imaginary = ops.stft(
            ops.cast(inputs, wide), self.sequence_length, self.sequence_stride, self.fft_length, window=self.window
        )
        power = ops.square(real) + ops.square(imaginary)
        strength = power if self.mag_exp == 2 else ops.power(power, self.mag_exp / 2)
        bands = ops.matmul(strength, ops.convert_to_tensor(self._bands(power.shape[-1]), wide))
        if self.power_to_db:
            bands = self._decibels(bands)
        return ops.cast(ops.swapaxes(bands, -1, -2), self.compute_dtype)

    def _decibels(self, power: Any) -> Any:
        reference = 10.0 * math.log10(max(abs(self.ref_power), self.min_power))
        level = 10.0 * ops.log10(ops.maximum(power, self.min_power)) - reference
        return ops.maximum(level, ops.max(level) - self.top_db)

    def _bands(self, frequencies: int) -> np.ndarray[Any, Any]:
        """The share of each frequency in each band, (frequencies, bands): triangles over the mel scale."""

        def mel(hertz: Any) -> np.ndarray[Any, Any]:
            return 1127.0 * np.log1p(np.asarray(hertz, "float64") / 700.0)

        place = mel(np.linspace(0.0, self.sampling_rate / 2, frequencies))[1:, None]
        edges = np.linspace(mel(self.min_freq), mel(self.max_freq), self.num_mel_bins + 2)
        low, middle, high = edges[:-2], edges[1:-1], edges[2:]
        shares = np.minimum((place - low) / (middle - low), (high - place) / (high - middle))
        return np.pad(np.maximum(shares, 0.0), ((1, 0), (0, 0)))
