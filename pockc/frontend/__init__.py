"""From a PyTorch model to graphs: the only part of the compiler that knows torch.

`capture.capture` traces a model and its loss, `optimizers.recipe` traces one parameter update,
`loading.load_model` finds the model a user named. What they return (`captured`) needs no torch.
Importing this package is cheap: torch is loaded by the modules that use it.
"""
