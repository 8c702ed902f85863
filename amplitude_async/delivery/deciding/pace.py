"""Stub."""
__all__=["Pace"]
import math
class Pace:
    RECOVER=1.25; PROBE=1.015; SEEK=1.05; EASE=0.92
    def __init__(self, *, most, base, longest, timeout, uniform):
        self.most=most; self.base=base; self.longest=longest; self.uniform=uniform
        self._w=float(most); self.gap=0.0
        self.next_at=-math.inf
        self.slowed_at=-math.inf
        self.known=None     # gap that is known to be too fast-> target gap
        self.wide=None      # width known too wide
        self.calm=0         # successes since last slowdown
        self.held_back=False
        self.patience=16    # successes before widening
        self.failures=0
        self.saved=None
        self.worked=(float(most),0.0)
        self.trial=0
    @property
    def width(self): return int(self._w)
    def press(self): self.held_back=True
    def hold(self, until): self.next_at=max(self.next_at,until)
    def may(self, now, out):
        ok = out < int(self._w) and now >= self.next_at-1e-9
        if not ok: self.held_back=True
        return ok
    def started(self, now):
        if self.gap:
            self.next_at=now+self.gap*self.uniform(0.97,1.03)
    def taken(self, now, started_at):
        self.failures_before=self.failures
        if self.failures>=3:
            # an outage is over: try half of what last worked
            self.saved=(self._w,self.gap)
            w,g=self.worked
            if g*2 < self.gap or w/2>self._w:
                self._w=max(1.0,w/2); self.gap=g*2 if g else 0.0
                self.trial=3; self.next_at=now+self.gap
                self.slowed_at=now   # answers of before say nothing of this pace
        elif self.trial:
            self.trial-=1
            if not self.trial: self.saved=None
        self.failures=0
        self.calm+=1
        if not self.held_back: return
        self.held_back=False
        if self.gap:
            if self.known is None: f=self.SEEK
            elif self.gap>self.known: f=self.RECOVER
            else: f=self.PROBE
            g=self.gap/f
            if self.known is not None and self.gap>self.known>g: g=self.known
            self.gap=g if g>0.005 else 0.0
            self.next_at=min(self.next_at, now+self.gap)
        elif self.calm>=self.patience*int(self._w) and self._w<self.most:
            self._w=min(self.most,int(self._w)+1); self.calm=0
        if not self.trial and self.failures_before==0 and self.calm>=5:
            self.worked=(self._w,self.gap)
    def slowed(self, now, started):
        if started<=self.slowed_at and self.failures==0 : return
        if started<self.slowed_at: return
        self.slowed_at=now
        self.failures+=1
        if self.trial:
            self.trial=0
            self._w,self.gap=self.saved
            self.worked=self.saved
            self.saved=None
            self.next_at=now+self.gap
            return
        if self.failures==1:
            if self.gap: self.known=self.gap/self.EASE
            self.patience=min(self.patience*2,1024)
        self._w=max(1.0,float(int(self._w/2)))
        self.gap=min(max(self.gap*2,self.base),self.longest)
        self.next_at=now+self.gap*self.uniform(0.9,1.2)
        self.calm=0; self.held_back=False
    def __repr__(self): return f"w{self._w} g{self.gap:.3f} known {self.known} f{self.failures}"
