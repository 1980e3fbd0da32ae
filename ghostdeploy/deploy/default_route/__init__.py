"""The default route: what a user gets who exports the untouched module in each vendor's usual way, nothing else done.

    onnx       torch.onnx.export(module, args, dynamo=True)                       float32
    openvino   openvino.convert_model(module, example_input=…, input=shape), save_model    half-precision weights
    tflite     litert_torch.convert(module, args).export(path)                    float32, takes (N, 3, H, W)

The artefact becomes a bundle like any other, so the same runtime runs it with the same session settings and threads and
only the artefact differs. `targets` names the worker of each row; it runs in a child process like every converter.
"""
