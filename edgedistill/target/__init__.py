"""What must it fit? Devices and limits, costs, latencies, and which student to train."""
