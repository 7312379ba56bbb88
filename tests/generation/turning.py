"""Makes models of any size multiply a few rows in another way, whatever this machine does faster."""

from contextlib import contextmanager

import pytest

from hf_mmspec.generation import few_rows
from hf_mmspec.generation.cost_cache import Measured
from hf_mmspec.generation.reordered_weights import ReorderedWeight

WAYS = ("turned", "reordered")


class Products(list):
    """The weights of all products that were computed in another way, so that a test can tell that there were any."""

    def of(self, model):
        """How many of them were of weights of `model`."""
        own = {id(parameter) for parameter in model.parameters()}
        return sum(id(weight) in own for weight in self)


@contextmanager
def turned(way="turned", **shares):
    """As if that way had been measured to take so much of the usual time, by rows (`rows_8=0.5`), and the other one as
    much as usual. Gives the `Products` that it leads to."""
    products, transposed, reordered = Products(), few_rows.transposed_product, ReorderedWeight.product

    def transposed_product(x, weight, bias):
        products.append(weight)
        return transposed(x, weight, bias)

    def reordered_product(self, x, bias):
        products.append(self._weight)
        return reordered(self, x, bias)

    def measure(layers, asked, sizes):
        numbers = {size: shares.get(f"rows_{size}", 0.5) if asked == way else 1.0 for size in sizes}
        return Measured(numbers, is_steady=False)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(few_rows, "_LEAST_WEIGHTS", 0)
        patch.setattr(few_rows, "_measure", measure)
        patch.setattr(few_rows, "remembered", lambda key, measure, needed: measure())
        patch.setattr(few_rows, "transposed_product", transposed_product)
        patch.setattr(ReorderedWeight, "product", reordered_product)
        yield products
