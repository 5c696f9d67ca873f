//! The path of a parameter during a walk over the model.

/// The names of the fields that a walk has entered. The variant of an enum is not part of a path.
#[derive(Debug, Default)]
pub struct PathStack(Vec<String>);

impl PathStack {
    /// Call from `enter_module` of a visitor or mapper.
    pub fn enter(&mut self, name: &str, container: &str) {
        if !is_enum(container) {
            self.0.push(name.to_owned());
        }
    }

    /// Call from `exit_module`.
    pub fn exit(&mut self, container: &str) {
        if !is_enum(container) {
            self.0.pop();
        }
    }

    /// The path of the current field, such as `text_tower.encoder.blocks.0`.
    pub fn path(&self) -> String {
        self.0.join(".")
    }
}

/// Whether `container` is the one that Burn's derive names for a variant of an enum.
fn is_enum(container: &str) -> bool {
    container.starts_with("Enum:")
}
