"""A model that exists as an ONNX file, as a torch Module: onnxruntime (the extra `onnx`) runs it."""

from typing import Any

import numpy as np
import torch

from ..sampling.scores import line_of

TYPES = {"tensor(float)": torch.float32, "tensor(double)": torch.float64, "tensor(float16)": torch.float16}
PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class OnnxModel(torch.nn.Module):
    """Scores of a batch, from the one output of the one input of an ONNX file."""

    numbers: torch.Tensor

    def __init__(self, path: str, device: str) -> None:
        """Open it.

        Raises:
            ImportError: no onnxruntime.
            ValueError: a file that is no ONNX model, or not one of a batch of any size to scores; a device that onnxruntime lacks.
        """
        super().__init__()
        try:
            import onnxruntime
        except ImportError:
            raise ImportError(f"{path}: ONNX models need onnxruntime: pip install 'certlut[onnx]'") from None
        provider = PROVIDERS.get(device.partition(":")[0])
        if provider not in onnxruntime.get_available_providers():
            raise ValueError(
                f"{path}: this onnxruntime does not run on device {device!r}; expected cpu (onnxruntime-gpu knows cuda)"
            )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = torch.get_num_threads(), 4
        where = {"device_id": torch.device(device).index or 0} if provider == PROVIDERS["cuda"] else {}
        try:
            self.session: Any = onnxruntime.InferenceSession(path, options, providers=[(provider, where)])
        # Its errors have no base class of their own.
        except Exception as error:
            raise ValueError(f"{path}: not an ONNX file, or damaged ({line_of(error)})") from None
        inputs, outputs = self.session.get_inputs(), self.session.get_outputs()
        if len(inputs) != 1 or len(outputs) != 1 or inputs[0].type not in TYPES:
            held = ", ".join(f"{x.name} {x.type}" for x in inputs)
            raise ValueError(
                f"{path}: takes {held} and gives {len(outputs)} outputs; expected one input of real numbers, one output"
            )
        self.input, size = inputs[0].name, next(iter(inputs[0].shape), None)
        if isinstance(size, int):
            raise ValueError(f"{path}: exported for batches of {size} alone; export it with a free batch size (dynamic_shapes)")
        # Tells the sampler where this runs and in which numbers.
        self.register_buffer("numbers", torch.zeros((), dtype=TYPES[inputs[0].type]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shape (B, *shape) to (B, classes)."""
        batch = x.detach().to("cpu", self.numbers.dtype).contiguous().numpy()
        scores = self.session.run(None, {self.input: batch})[0]
        return torch.from_numpy(np.ascontiguousarray(scores)).to(x.device)
