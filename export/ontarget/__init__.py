"""The device kit: runs, checks and measures an edgedistill bundle with numpy and onnxruntime alone.

It ships inside every bundle as `ontarget.pyz`, and the workstation measures with this same code.
Syntax of Python 3.8; onnxruntime and Pillow are imported only when a session opens or an image is
read.
"""

__version__ = "0.1.0"
