//! What can be typed behind the name of a program, whichever table it comes from.

/// A program and what it takes.
#[derive(Debug)]
pub struct CompletedProgram {
    /// Its name.
    pub name: &'static str,
    /// Its options.
    pub flags: Vec<CompletedFlag>,
    /// What the list of its `-o` may have.
    pub suboptions: Vec<CompletedFlag>,
    /// Its commands, of one word or two.
    pub commands: Vec<CompletedFlag>,
}

/// An option, a suboption or a command.
#[derive(Debug)]
pub struct CompletedFlag {
    /// Its letter, or empty.
    pub letter: String,
    /// Its name, or empty.
    pub name: &'static str,
    /// What its argument is called, or empty.
    pub argument: &'static str,
    /// What `--help` says, in one line and without what is too much here.
    pub about: String,
}

/// What the shell itself knows about an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArgumentKind {
    /// There is none.
    None,
    /// Nothing.
    Other,
    /// It is the path of a file.
    File,
    /// It is a user of the system.
    User,
    /// It is the list of `-o`.
    Extended,
}

impl CompletedFlag {
    /// One with the first clause of its help.
    pub fn new(letter: String, name: &'static str, argument: &'static str, help: &str) -> CompletedFlag {
        let line = help.split_whitespace().collect::<Vec<_>>().join(" ");
        let end = [";", " ("].iter().filter_map(|mark| line.find(mark)).min();
        let about = end.map_or(line.as_str(), |end| &line[..end]).trim_end_matches(':').to_owned();
        CompletedFlag { letter, name, argument, about }
    }

    /// What its argument is.
    pub fn kind(&self) -> ArgumentKind {
        match (self.argument, self.name) {
            ("", _) => ArgumentKind::None,
            (_, "extended") => ArgumentKind::Extended,
            ("<file>" | "<path>", _) => ArgumentKind::File,
            ("<user>", _) => ArgumentKind::User,
            _ => ArgumentKind::Other,
        }
    }

    /// What its argument is called, without brackets.
    pub fn argument_name(&self) -> String {
        self.argument.chars().filter(|c| c.is_alphanumeric() || *c == '-').collect()
    }

    /// All ways to type the option.
    pub fn typed(&self) -> Vec<String> {
        let letter = (!self.letter.is_empty()).then(|| format!("-{}", self.letter));
        letter.into_iter().chain((!self.name.is_empty()).then(|| format!("--{}", self.name))).collect()
    }
}
