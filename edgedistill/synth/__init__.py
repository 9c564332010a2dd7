"""What more can it see? Synthetic images from diffusion models, with a ledger of every one."""
