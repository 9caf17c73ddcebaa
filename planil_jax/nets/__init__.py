"""Networks: the only package that imports a layer library."""
