"""One node as a whole: the rooms put together, and the desks of its supervisor. It knows every room; no room knows it."""
