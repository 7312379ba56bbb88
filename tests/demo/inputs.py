"""What the embedded default's processor makes of a sample."""

from hf_mmspec.demo.making.evaluate import with_images


def inputs_of(processor, sample):
    """The tensors for `generate`: ids and mask [1, T], pixels [1, 3, 192, 192]."""
    messages = with_images(sample["messages"], sample["images"])
    return processor.apply_chat_template(
        messages, tokenize=True, add_generation_prompt=True, return_dict=True, return_tensors="pt"
    )
