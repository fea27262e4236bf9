"""Kernels by family; each module registers its ops with `@inline` or `@lower`."""
