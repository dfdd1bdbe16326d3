"""Signed neurons with memory for networks that are built with other libraries; each module needs
the library whose name it has."""
