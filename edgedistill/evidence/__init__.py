"""Is it good enough? Measuring, judging and showing the result."""
