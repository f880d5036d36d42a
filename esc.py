import os, sys, tempfile, yaml, torch, warnings; from pathlib import Path; import redan
(p:=Path(tempfile.mkdtemp()))
(p/"victims.py").write_text('''
import torch
from torch import nn
from redan.samples import model
class L(nn.Module):
    def __init__(s): super().__init__(); s.n=model("natural"); s.register_buffer("t",torch.linspace(0,1,8)); s.eval()
    def forward(s,x): return s.n(x+0.0*s.t[(x*7).round().long()])
def build(): return L()
''')
d={"redan":1,"system":{"name":"a","purpose":"sort returned garments","task":"classification","classes":10,"model":{"factory":"victims:build"},"output":"logits","inputs":{"kind":"image","shape":[1,28,28],"bounds":[0,1]},"data":{"test":"redan.samples:fashion_mnist_test"}},
"attackers":[{"name":"anyone","kind":"evasion","why":"pictures come from customers","goal":"untargeted","knowledge":"gradients","change":{"linf":0.02}}],
"requirements":[{"metric":"robust_accuracy","at_least":0.001,"against":"anyone"}],"attacks":{"mode":"quick"},"statistics":{"rows":32},"run":{"out":"runs"}}
(p/"threat-model.yaml").write_text(yaml.safe_dump(d,sort_keys=False))
try:
    r=redan.assess(p/"threat-model.yaml",workers=1); print("verdict",r.verdict if hasattr(r,'verdict') else r)
except BaseException as e:
    import traceback; traceback.print_exc(limit=-6); print("ASSESS RAISED",type(e).__name__,e)
print(list(p.rglob("report.json")))
