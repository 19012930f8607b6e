"""Speed: how long pools take on this machine, and what the time is compared with."""
