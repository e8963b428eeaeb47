"""Times the student beside this file with onnxruntime and numpy alone: python bench.py [VARIANT [THREADS]]."""

import json
import os
import platform
import re
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime as ort

variant, threads = [*sys.argv[1:], *["fp32", "1"][len(sys.argv) - 1 :]]
runs, options = {}, ort.SessionOptions()
options.intra_op_num_threads, options.log_severity_level = int(threads), 3
for name in ("image", "text", "decoder"):
    path = Path(__file__).parent / variant / f"{name}.onnx"
    runs[name] = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
image, tokens = (np.full(runs[name].get_inputs()[0].shape, 127) for name in ("image", "text"))
inputs = {"image": image.astype(np.uint8)}, {"tokens": tokens.astype(np.int64)}
cpu = re.search(r"(?m)^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text()) if sys.platform == "linux" else None
said = {"device": f"cpu {cpu[1].strip() if cpu else platform.processor() or platform.machine()}".strip(), "batch": 1}
said |= {"threads": int(threads), "resolution": image.shape[-1], "num_phrases": len(tokens)}
said |= {"precision": variant, "runtime": f"onnxruntime {ort.__version__}", "load": round(os.getloadavg()[0], 2)}


def timed(_: int) -> float:
    start, (cells, pixels) = time.perf_counter(), runs["image"].run(None, inputs[0])
    rows = runs["text"].run(None, inputs[1])[0]
    runs["decoder"].run(None, {"cells": cells, "pixels": pixels, "rows": rows})
    return 1000 * (time.perf_counter() - start)


first, medians = timed(0), [0.0, float(np.median([*map(timed, range(10))]))]
while abs(medians[-1] / (medians[-2] or 1e-9) - 1) > 0.05 and len(medians) < 21:  # until two windows of ten calls agree
    medians.append(float(np.median([*map(timed, range(10))])))
ms, record = [*map(timed, range(50))], {"first_ms": first, "num_calls": 50, "num_warm_up": 10 * len(medians) - 10}
record |= {"ms": float(np.median(ms)), "p95_ms": float(np.quantile(ms, 0.95)), "stable": len(medians) < 21}
print(json.dumps(record | {"conditions": said}))
