"""Signed neurons with memory for networks that are built with other libraries, and networks for
other tools; each module needs the library whose name it has, and the test bench none."""
