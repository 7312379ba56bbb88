"""What commands do before anything heavy: quiet libraries, threads.

Loads no model.
"""


def use_threads(threads: int | None) -> None:
    """Silence bars and warnings of transformers and bitsandbytes, and set torch's threads; None leaves them as they
    are."""
    import logging as standard_logging

    import torch
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    standard_logging.getLogger("bitsandbytes").setLevel(standard_logging.ERROR)  # it warns at every 8-bit layer
    if threads is not None:
        torch.set_num_threads(threads)
