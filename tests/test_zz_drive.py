import os, sys, traceback
sys.path.insert(0,'/work/w-fuzz/tests')
import fuzz, pytest, resource
def test_drive(relay, stage, monkeypatch, capsys):
    g=fuzz.Ground(relay, stage, monkeypatch)
    seen={}; sp={}
    seed=int(os.environ.get("S","1")); n=int(os.environ.get("N","4000"))
    only=os.environ.get("ONLY")
    for i in range(n):
        t,c,d=fuzz.case_of(g,seed,i)
        if only and t!=only: continue
        import time; b=time.perf_counter()
        try: fuzz.feed(g,t,c,d)
        except fuzz.Found as p:
            cause=p.__cause__
            tb=traceback.extract_tb(cause.__traceback__)
            fr=[f for f in tb if f.filename.endswith('bin/relay')] or tb
            key=(t,type(cause).__name__,fr[-1].name,fr[-1].lineno)
            if key not in seen:
                seen[key]=1
                with capsys.disabled():
                    print("\n##",i,key,str(cause)[:300].replace("\n","|"),"\n   ",[(f.name,f.lineno) for f in tb][-6:],"\n   ",len(c),c[:250])
            else: seen[key]+=1
        sp.setdefault(t,[]).append(time.perf_counter()-b)
    with capsys.disabled(): print(seen); print({t:(len(v),round(1000*sum(v)/len(v),2),round(1000*max(v))) for t,v in sp.items()})
