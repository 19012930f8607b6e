"""Compilers: what compiled programs move and send; nothing here measures time."""
