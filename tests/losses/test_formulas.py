"""Every loss against its paper's formula, written out in float64 one sample at a time."""

# ruff: noqa: N803 - T and C are the papers' names
import math

import numpy as np
import pytest
import torch

from skd_cache import losses
from skd_cache.batch import Judgement, LogitBatch, Statistics

B, C = 7, 12


def soft(x):
    e = torch.exp(x - x.max())
    return e / e.sum()


def without(x, y):
    return torch.cat([x[:y], x[y + 1 :]])


def kl(p, q):
    return (p * (p / q).log()).sum()


def averaged(per_sample):
    """The mean over the batch of a formula for one sample."""
    return lambda z, t, y: torch.stack(
        [per_sample(*one) for one in zip(z, t, y.tolist(), strict=True)]
    ).mean()


def ce(z, y):
    return -soft(z)[y].log()


def kd(T, a):
    return averaged(lambda z, t, y: (1 - a) * ce(z, y) + a * T**2 * kl(soft(t / T), soft(z / T)))


def decoupled(z, t, y, T, alpha, beta):
    p, q = soft(t / T), soft(z / T)
    binary = [torch.stack([x[y], without(x, y).sum()]) for x in (p, q)]
    among = [without(x, y) / without(x, y).sum() for x in (p, q)]
    return T**2 * (alpha * kl(*binary) + beta * kl(*among))


def dkd(T, alpha, beta):
    return averaged(lambda z, t, y: ce(z, y) + decoupled(z, t, y, T, alpha, beta))


def score(x):
    return (x - x.mean()) / (x.std(unbiased=True) + 1e-7)


def logit_std(T, a, weight):
    def one(z, t, y):
        p, q = soft(score(t) / T), soft(score(z) / T)
        return (1 - a) * ce(z, y) + weight * T**2 * kl(p, q)

    return averaged(one)


def logit_std_dkd(T, alpha, beta, weight):
    return averaged(
        lambda z, t, y: ce(z, y) + weight * decoupled(score(z), score(t), y, T, alpha, beta)
    )


def nkd(T, gamma):
    def one(z, t, y):
        target = -soft(t)[y] * soft(z)[y].log()
        p, q = soft(without(t, y) / T), soft(without(z, y) / T)
        return ce(z, y) + target - gamma * T**2 * (p * q.log()).sum()

    return averaged(one)


def ttm(T, beta):
    return averaged(lambda z, t, y: ce(z, y) + beta * kl(soft(t / T), soft(z)))


def wttm(T, beta):
    def one(z, t, y):
        power = soft(t) ** (1 / T)
        return ce(z, y) + beta * power.sum() * kl(power / power.sum(), soft(z))

    return averaged(one)


def topped(p, k, spread=True):
    kept = torch.zeros(len(p), dtype=torch.bool)
    kept[p.argsort(descending=True)[:k]] = True
    rest = torch.full_like(p, p[~kept].sum() / (len(p) - k)) if spread else torch.zeros_like(p)
    return torch.where(kept, p if spread else p / p[kept].sum(), rest)


def soft_ce(k=C, spread=True):
    def one(z, t, y):  # noqa: ARG001
        p = topped(soft(t), k, spread) if k < C else soft(t)
        return -(p * soft(z).log()).sum()

    return averaged(one)


def smoothed(epsilon):
    def one(z, t, y):  # noqa: ARG001
        target = torch.full_like(z, epsilon / C)
        target[y] += 1 - epsilon
        return -(target * soft(z).log()).sum()

    return averaged(one)


def tang(teacher, T, a):
    return averaged(lambda z, t, y: (1 - a) * ce(z, y) + a * T**2 * kl(teacher(t, y), soft(z / T)))


def partial(T):
    def teacher(t, y):
        own = soft(t / T)[y]
        p = torch.full_like(t, 0.0) + (1 - own) / (C - 1)
        p[y] = own
        return p

    return teacher


def similar(tau):
    def teacher(t, y):  # noqa: ARG001
        cosines = [torch.dot(WEIGHT[y], w) / (WEIGHT[y].norm() * w.norm()) for w in WEIGHT]
        return soft(torch.stack(cosines) / tau)

    return teacher


def dist(tau, beta, gamma):
    def rho(a, b):
        a, b = a - a.mean(), b - b.mean()
        return (a * b).sum() / (a.norm() * b.norm())

    def batch(z, t, y):
        p, q = (torch.stack([soft(row / tau) for row in x]) for x in (z, t))
        inter = torch.stack([rho(a, b) for a, b in zip(p, q, strict=True)]).mean()
        intra = torch.stack([rho(a, b) for a, b in zip(p.T, q.T, strict=True)]).mean()
        entropy = torch.stack([ce(*one) for one in zip(z, y.tolist(), strict=True)]).mean()
        return entropy + tau**2 * (beta * (1 - inter) + gamma * (1 - intra))

    return batch


def sphere(norm, T, a):
    def one(z, t, y):
        z, t = z - z.mean(), t - t.mean()
        m = t.norm() if norm is None else norm
        z, t = m * z / z.norm(), m * t / t.norm()
        return (1 - a) * ce(z, y) + a * T**2 * kl(soft(t / T), soft(z / T))

    return averaged(one)


WEIGHT = torch.randn(C, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

FORMULAS = {
    "kd": kd(4, 0.9),
    "spherical:scale=2.5": sphere(2.5 * math.sqrt(C), 4, 0.9),
    "spherical:scale=7,unit=norm,temperature=2,alpha=0.3": sphere(7, 2, 0.3),
    "spherical:scale=sample": sphere(None, 4, 0.9),
    "dist": dist(1, 2, 2),
    "dist:tau=4,beta=1,gamma=3": dist(4, 1, 3),
    "dkd": dkd(4, 1, 8),
    "dkd:temperature=1,alpha=2,beta=0.5": dkd(1, 2, 0.5),
    "dkd:beta=0": dkd(4, 1, 0),
    "dkd:alpha=0": dkd(4, 0, 8),
    "logit-std": logit_std(2, 0.9, 9),
    "logit-std:temperature=3,alpha=0.4,weight=5": logit_std(3, 0.4, 5),
    "logit-std:base=dkd": logit_std_dkd(2, 1, 8, 9),
    "logit-std:base=dkd,alpha=3,beta=2,weight=1.5": logit_std_dkd(2, 3, 2, 1.5),
    "nkd": nkd(1, 1.5),
    "nkd:temperature=3,gamma=3.5": nkd(3, 3.5),
    "ttm": ttm(10, 45),
    "ttm:temperature=1.25,beta=1.6": ttm(1.25, 1.6),
    "wttm": wttm(1.25, 1.6),
    "wttm:temperature=5,beta=2": wttm(5, 2),
    "soft-ce": soft_ce(),
    "soft-ce:k=4": soft_ce(4),
    "soft-ce:k=4,tail=renormalised": soft_ce(4, spread=False),
    "soft-ce:k=12": soft_ce(),
    "ls:smoothing=0.3": smoothed(0.3),
    "ls": smoothed(1 - 0.625),
    "kd-pt": tang(partial(1), 1, 0.9),
    "kd-pt:temperature=3,alpha=0.5": tang(partial(3), 3, 0.5),
    "kd-sim:tau=0.4": tang(similar(0.4), 1, 0.9),
    "kd-sim:tau=0.4,temperature=2": tang(similar(0.4), 2, 0.9),
    "kd-topk": tang(lambda t, _: topped(soft(t), 3), 1, 0.9),
    "kd-topk:k=5,temperature=2,alpha=0.5": tang(lambda t, _: topped(soft(t / 2), 5), 2, 0.5),
}


class AsTheyAre:
    def decode(self, code, norm):  # noqa: ARG002
        return code["logits"]


def cached(t):
    """Logits with the statistics of a cache in which the true class has 0.625 on average."""
    true = np.array([0.5, 0.75])
    judgement = Judgement(np.array([True, True]), np.array([0.9, 0.8]), true)
    statistics = Statistics.of(np.array([3.0, 5.0], np.float32), judgement)
    return LogitBatch(torch.zeros(len(t)), {"logits": t}, AsTheyAre(), statistics)


@pytest.mark.parametrize("spread", [0.03, 1.0, 6.0])
@pytest.mark.parametrize("text", FORMULAS)
def test_value_and_gradient_are_those_of_the_paper(text, spread):
    generator = torch.Generator().manual_seed(2)
    z, t = (
        spread * torch.randn(B, C, generator=generator, dtype=torch.float64) + 1 for _ in range(2)
    )
    y = torch.randint(C, (B,), generator=generator)
    loss = losses.parse(text)
    losses.give_class_weight(loss, WEIGHT)
    results = []
    for compute in (loss, FORMULAS[text]):
        x = z.clone().requires_grad_()
        teacher = cached(t) if compute is loss and text == "ls" else t
        value = compute(x, teacher, y)
        results.append((value.item(), *torch.autograd.grad(value, x)))
    (value, slope), (expected, expected_slope) = results
    assert value == pytest.approx(expected, rel=1e-9)
    assert (slope - expected_slope).norm() <= 1e-8 * expected_slope.norm()


def test_kd_sim_makes_the_mean_of_its_own_class_the_teachers_confidence():
    loss = losses.make("kd-sim", class_weight=WEIGHT)
    tau = loss.solve(loss.cosines, cached(torch.zeros(B, C))).item()
    own = [similar(tau)(None, y)[y].item() for y in range(C)]
    assert np.mean(own) == pytest.approx(0.625, rel=1e-9)


def test_kd_sim_takes_the_nearest_tau_where_no_tau_reaches_the_confidence():
    weight = torch.ones(C, 3)  # all classes alike: 1/C whatever the tau
    loss = losses.make("kd-sim", class_weight=weight)
    tau = loss.solve(loss.cosines, cached(torch.zeros(B, C))).item()
    assert tau == pytest.approx(loss.ranges["tau"][0])
