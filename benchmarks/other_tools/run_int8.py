"""NNCF and OpenVINO on the same float32 file, in an environment of their own.

    python run_int8.py nncf-onnx FLOAT32.onnx IMAGES.npy OUT.onnx     NNCF's post-training quantization of the ONNX file
    python run_int8.py openvino FLOAT32.onnx IMAGES.npy OUT.xml       the same of OpenVINO's form of it
    python run_int8.py serve MODEL                                    answer requests on a loaded model, see `serve`

All with their defaults but for the number of images. One thread.
"""

import json
import sys
import time

import numpy as np


def quantize(kind: str, source: str, images: str, out: str) -> None:
    """Write the INT8 model."""
    import nncf  # type: ignore[import-not-found]

    pixels = np.load(images)
    data = nncf.Dataset([pixels[i : i + 1] for i in range(len(pixels))], lambda x: x)
    if kind == "openvino":
        import openvino  # type: ignore[import-not-found]

        made = nncf.quantize(openvino.convert_model(source), data, subset_size=len(pixels))
        openvino.save_model(made, out)
        return
    import onnx

    model = onnx.load(source)
    name = model.graph.input[0].name
    named = nncf.Dataset([{name: pixels[i : i + 1]} for i in range(len(pixels))], lambda x: x)
    onnx.save(nncf.quantize(model, named, subset_size=len(pixels)), out)


def serve(model: str) -> None:
    """Lines in: {"time": K, "images": FILE} gives K seconds of single images; {"logits": OUT, "images": FILE} writes
    logits (N, C). A line out for each.
    """
    run = opened(model)
    for line in sys.stdin:
        wish = json.loads(line)
        pixels = np.load(wish["images"], mmap_mode="r")
        if "time" in wish:
            one = np.ascontiguousarray(pixels[:1])
            found = []
            for _ in range(wish["time"]):
                began = time.perf_counter()
                run(one)
                found.append(time.perf_counter() - began)
            print(json.dumps(found), flush=True)
        else:
            parts = [run(np.ascontiguousarray(pixels[i : i + 1])) for i in range(len(pixels))]
            np.save(wish["logits"], np.concatenate(parts))
            print("0", flush=True)


def opened(model: str):  # type: ignore[no-untyped-def]
    """A function from pixels (1, S, S, 3) to logits (1, C), on one thread."""
    if model.endswith(".onnx"):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        return lambda pixels: session.run(None, {name: pixels})[0]
    import openvino

    core = openvino.Core()
    compiled = core.compile_model(
        model, "CPU", {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY"}
    )
    request = compiled.create_infer_request()
    return lambda pixels: np.array(next(iter(request.infer([pixels]).values())))


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    else:
        quantize(*sys.argv[1:5])
