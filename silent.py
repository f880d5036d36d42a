import torch, tempfile, yaml, sys, warnings
warnings.filterwarnings("ignore")
torch.set_num_threads(1)
from torch import nn
from torch.nn import functional as F
from redan.targets import from_torch, retraced
torch.manual_seed(0)
X=torch.rand(8,1,28,28); Y=torch.arange(8)
lin=nn.Linear(784,10)
class M(nn.Module):
    def __init__(s,f): super().__init__(); s.f=f; s.lin=lin; s.eval()
    def forward(s,x): return s.lin(s.f(x).flatten(1))*5
def swish_(x): h=x*4-2; return h.mul_(h.sigmoid())
def late(x): a=x*4-2; b=a.tanh(); a.mul_(3); return b+a
def buf(x): b=torch.ones(1)*2; h=x*b; b.mul_(100); return h.tanh()
def att(x): z=x[:,0]; return z+5*F.scaled_dot_product_attention(z[:,None]*4,z[:,None],z[:,None])[:,0]
def drop(x): return F.dropout(x,.5,True)+x
def binar(x): return torch.where(x>.5,torch.ones_like(x),torch.zeros_like(x))
def sawtooth_honest(x): return (x*3)%1.0
def clipw(x): return torch.where(x>.7,torch.full_like(x,.7),x)
def asst(x): return x.as_strided((len(x),1,14,28),(784,784,56,1)).repeat(1,1,2,1)
def roll(x): h=torch.cat([x,x],1); h[:,0]=h[:,1]*2; return h[:,:1]+h[:,1:]
from redan.testing.masks import *
for n,f in dict(swish_=swish_,late=late,buf=buf,attention=att,binar=binar,sawtooth_honest=sawtooth_honest,clipw=clipw,as_strided=asst,roll=roll,
   ln=lambda x:F.layer_norm(x,(28,28)),gn=lambda x:F.group_norm(x.repeat(1,4,1,1),2)[:,:1],gelu=F.gelu,silu=lambda x:F.silu(x,inplace=False),hardswish=F.hardswish,
   elu_=lambda x:F.elu(x-.5,inplace=True),leaky=lambda x:F.leaky_relu(x-.5),inorm=F.instance_norm,bicubic=lambda x:F.interpolate(x,size=28,mode='bicubic'),
   maxmin=lambda x:torch.maximum(x,1-x),sorted=lambda x:x.flatten(1).sort(1).values,norm=lambda x:F.normalize(x.flatten(1)),std=lambda x:(x-x.mean())/x.std(),
   chunk=lambda x:torch.cat([c*i for i,c in enumerate(x.chunk(4,-1))],-1),einsum=lambda x:torch.einsum('bchw,bchv->bcwv',x,x),cdist=lambda x:torch.cdist(x[:,0],x[:,0]),
   prelu=nn.PReLU(),softplus=F.softplus,unfold=lambda x:F.fold(F.unfold(x,4,stride=4),28,4,stride=4),pixshuf=lambda x:F.pixel_shuffle(F.pixel_unshuffle(x,2),2),avg=lambda x:F.interpolate(F.avg_pool2d(x,2),28),
   ste=lambda x:x+((x*7).round()/7-x).detach(),roundste2=lambda x:x+(thermometer(x)-x).detach()).items():
    t=from_torch(M(f))
    def g(t):
        z=X.clone().requires_grad_(); return torch.autograd.grad(F.cross_entropy(t(z),Y,reduction='sum'),z)[0]
    try: own=g(t)
    except Exception as e: own=None; why=f"{type(e).__name__} {str(e)[:50]}"
    try: r=retraced(t,X)
    except Exception as e: print(f"{n:16} ESCAPED {type(e).__name__} {str(e)[:60]}"); continue
    if r is None: print(f"{n:16} None (own {'-' if own is None else float(own.abs().max()):})"); continue
    p=g(r)
    if own is None: print(f"{n:16} own: {why}; played max {float(p.abs().max()):.3g}")
    else: print(f"{n:16} {'EQUAL' if (p-own).abs().max()<=1e-5*own.abs().max() else 'differs'} rel {float((p-own).abs().max()/own.abs().max().clamp_min(1e-30)):.1e} cos {float(F.cosine_similarity(p.flatten(),own.flatten(),0)):.3f}")
