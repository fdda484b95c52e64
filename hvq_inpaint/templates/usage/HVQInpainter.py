from hvq_inpaint import HVQInpainter
from hvq_inpaint.examples import load_example

image, mask = load_example()  # or paths, PIL images, arrays or tensors of your own; white in the mask = repaint
model = HVQInpainter.from_pretrained("MODEL")
result = model.inpaint(image, mask)
result.image.save("filled.png")  # pixels outside the mask are untouched, bit for bit
result.stages["coarse"].save("coarse.png")  # and every other intermediate
