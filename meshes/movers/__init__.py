"""Mesh movers: they give the nodes of a mesh other places, where a monitor asks for them, and keep its cells."""
