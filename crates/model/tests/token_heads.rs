//! All tokens of an image as the output of a tower, as they come from it.

use burn::tensor::Tensor;
use dualenc_model::{Dropout, ImageTower, ImageTowerConfig, Pool, Pooling, TakenLayers, TowerOptions};

use crate::support::{Expected, assert_close, goldens};
use crate::taken_layers::{IMAGE_TOWERS, image};

fn tower(dir: &str, pool: Pool, norm: bool) -> ImageTower {
    let layers = TakenLayers { norm, ..TakenLayers::default() };
    image(&goldens(dir), TowerOptions { pool, layers, ..TowerOptions::default() }).unwrap().0
}

fn values(tensor: Tensor<2>) -> Vec<f32> {
    tensor.into_data().try_to_vec().unwrap()
}

#[test]
fn tokens_hold_what_other_poolings_take() {
    for (name, dir) in IMAGE_TOWERS {
        let pixels = Expected::of_file(&goldens("layers").join(format!("{name}.safetensors"))).tensor("pixel_values");
        for norm in [true, false] {
            let pooled = |pool| tower(dir, pool, norm).forward(pixels.clone(), &Dropout::off()).pooled;
            let tokens = tower(dir, Pool::Tokens, norm);
            let (all, first) = (pooled(Pool::Tokens), pooled(Pool::Cls));
            let [batch, width] = first.dims();
            assert_eq!(all.dims(), [batch, tokens.width()], "{name}");
            assert_close(&format!("{name}: class token"), all.clone().narrow(1, 0, width), &values(first));
            let ImageTowerConfig::Transformer(config) = tokens.config() else { panic!("{name} is no transformer") };
            let special = 1 + config.registers;
            let count = tokens.width() / width;
            let patches = all.reshape([batch, count, width]).narrow(1, special, count - special);
            let mean = patches.mean_dim(1).reshape([batch, width]);
            assert_close(&format!("{name}: patches"), mean, &values(pooled(Pool::Mean)));
        }
    }
}

#[test]
fn token_width_follows_the_image_size() {
    let tower = tower("towers/vit", Pool::Tokens, true);
    let (width, patch) = (tower.width(), tower.side_multiple());
    assert_eq!(tower.pooling(), Pooling::Tokens);
    assert!(tower.form().ends_with(" pooling=tokens"), "{}", tower.form());
    let dim = self::tower("towers/vit", Pool::Cls, true).width();
    let larger = tower.for_images(8 * patch, 6 * patch);
    assert_ne!(larger.width(), width);
    assert_eq!(larger.width(), (1 + 8 * 6) * dim);
    let pixels = Tensor::zeros([2, 3, 8 * patch, 6 * patch], &crate::support::device());
    assert_eq!(larger.forward(pixels, &Dropout::off()).pooled.dims(), [2, larger.width()]);
}

#[test]
fn towers_without_patches_have_no_tokens() {
    for dir in ["image_families/resnet", "image_families/swin"] {
        let options = TowerOptions { pool: Pool::Tokens, ..TowerOptions::default() };
        let error = image(&goldens(dir), options).unwrap_err();
        assert!(error.contains("it has no patch tokens"), "{dir}: {error}");
    }
}
