"""Turns a spiking network into one of integers, whose layers and neurons compute exactly.

A value is integers that count a unit. Neurons send spikes, which are worth their thresholds; a
layer's weights take that in, and are rounded to whole parts of its own unit, one for each output
channel. All that is ever added up has the same unit. If neurons are the first to read a sum, the
unit is such a part of their threshold that the threshold comes out whole, and the largest weight
as large as so many bits allow; if a layer is, it is the finest that the bits allow. Who reads the
sum later takes it over.
"""
