# 1. On two CPU cores, two hours. How EncoderB1 and the refiner start was improved while this ran: each was drawn anew before its stage.
COMMON="--preset small --dataset DATA/train --validation DATA/val --adam-betas 0.9 0.99 --mixed-precision bf16"
python train_accelerate.py --stage autoencoder $COMMON --output runs/small --crop-size 128 --steps 4500 --batch-size 16 --quantization-warmup 400 --learning-rate 6e-4 --learning-rate-warmup 200 --validation-every 500
python train_accelerate.py --stage encoder $COMMON --output runs/small --crop-size 128 --steps 1800 --batch-size 16 --learning-rate 5e-4 --learning-rate-warmup 150 --validation-every 300 --checkpoint-every 300
# Resumed on the way with fewer --steps (16000 up to step 1200, 13000 up to 4800): the learning rate there was up to a sixth higher than this command's.
python train_accelerate.py --stage refiner $COMMON --output runs/small --crop-size 128 --steps 11000 --batch-size 8 --learning-rate 4e-4 --learning-rate-warmup 200 --final-learning-rate 0.02 --loss l1 --validation-every 600 --checkpoint-every 600
# 2. EncoderB1 goes on, with a loss of the picture: one hour on one core.
python train_accelerate.py --stage encoder --fine-tune --init runs/small/refiner/model $COMMON --output runs/tuned --crop-size 192 --steps 1500 --batch-size 8 --learning-rate 3e-4 --learning-rate-warmup 50 --coarse-weight 4 --ema-decay 0.995
# 3. The refiner goes on, with a loss of features: three hours on one core. Up to step 2200 it was --loss unit_features, with --steps 5500 (up to step 1200) and 3000.
python train_accelerate.py --stage refiner $COMMON --output runs/tuned --crop-size 192 --steps 2900 --batch-size 6 --learning-rate 4e-4 --learning-rate-warmup 100 --final-learning-rate 0.02 --ema-decay 0.998 --loss unit_features_lpips --feature-window 128 --validation-every 500 --checkpoint-every 100
# LPIPS took part in the last 700 steps: as a measure it flatters this model. PSNR does not.
# 4. EncoderB1 goes on again, on other crops: an hour and a half on one core. The refiner stays as it is.
python train_accelerate.py --stage encoder --fine-tune --init runs/tuned/refiner/model $COMMON --output runs/again --seed 1 --crop-size 192 --steps 2000 --batch-size 8 --learning-rate 3e-4 --learning-rate-warmup 50 --coarse-weight 4 --ema-decay 0.998 --validation-every 500
python hub/bundle.py runs/again/encoder/model
python -m hvq_inpaint evaluate hub/model --dataset DATA/val --mask-kind random_walk brush --out evaluation
python hub/bundle.py runs/again/encoder/model --evaluation evaluation
