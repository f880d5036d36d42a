"""redan where models are already tested and tracked: pytest, MLflow, scikit-learn, torchmetrics.

One file each, imported only by who uses it: `pytest_plugin`, `mlflow`, `sklearn`, `torchmetrics`. And other attack
libraries in both directions, their attacks under the referee, redan's behind their interfaces: `art`, `foolbox`,
`cleverhans`, `torchattacks`.
"""
