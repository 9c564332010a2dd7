"""What ships? ONNX files that the target's runtime takes, and the bundle around them."""
