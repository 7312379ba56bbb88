"""What commands do before anything heavy: quiet libraries, threads.

Loads no model.
"""


def use_threads(threads: int | None) -> None:
    """Silence transformers' bars and warnings, and set torch's threads; None leaves them as they are."""
    import torch
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    if threads is not None:
        torch.set_num_threads(threads)
