"""How cells go to outputs and back, on each platform; nothing knows what is pooled."""
