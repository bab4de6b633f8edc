# SPDX-License-Identifier: LGPL-2.1-or-later
#
# What tests/mutants/run reads and keeps: the tables beside this file, the faults of both kinds, the
# results of the last run, the copies of the tree. perl-base has all that this needs.
use strict;
use warnings;
use File::Basename qw(dirname);
use File::Path qw(make_path);
use File::Spec;

sub slurp {
	my ($path) = @_;
	open my $in, '<:raw', $path or die "$path: $!\n";
	local $/;
	return <$in> // '';
}

sub spew {
	my ($path, $text) = @_;
	open my $out, '>:raw', $path or die "$path: $!\n";
	print $out $text;
	close $out or die "$path: $!\n";
}

sub unique {
	my %seen;
	return grep { !$seen{$_}++ } @_;
}

sub fnv {
	my $h = 0x811c9dc5;
	$h = (($h ^ $_) * 0x01000193) & 0xffffffff for unpack 'N*', $_[0] . "\0\0\0";
	return sprintf ':%d:%08x', length $_[0], $h;
}

# --- tables

sub rows {
	my ($path) = @_;
	return () if !-e $path;
	return grep { /\S/ && !/^#/ } split /\n/, slurp($path);
}

sub read_areas {
	my %areas;
	for (rows($_[0])) {
		my ($area, $what, @words) = split;
		if ($what eq 'first') {
			my $pattern = shift @words;
			push @{$areas{$area}{first}}, [qr/$pattern/, \@words];
		} else {
			push @{$areas{$area}{$what}}, @words;
		}
	}
	return %areas;
}

# ID, blanks, the reason.
sub read_explained {
	my %why;
	for (rows($_[0])) {
		my ($id, $reason) = split ' ', $_, 2;
		defined $reason or die "$_[0]: no reason is given for $id\n";
		$why{$id} = $reason;
	}
	return \%why;
}

# ID, a tab, what killed it: a hint, and never a verdict.
sub read_killers {
	return {map { split /\t/, $_, 2 } rows($_[0])};
}

sub write_killers {
	my ($path, @killers) = @_;
	my $text = "# SPDX-License-Identifier: LGPL-2.1-or-later\n"
		. "# Written by ./dev mutants --record: which test to try first (docs/mutants.md).\n";
	$text .= "$_->[0]\t$_->[1]\n" for sort { $a->[0] cmp $b->[0] } @killers;
	spew($path, $text);
}

# --- faults

sub generated {
	my ($tree, $area) = @_;
	my @files;
	for (@{$area->{sources}}) {
		push @files, map { File::Spec->abs2rel($_, $tree) } glob "'$tree'/$_";
	}
	open my $in, '-|', dirname(__FILE__) . '/generate', $tree, @files or die "generate: $!\n";
	my @mutants;
	while (<$in>) {
		chomp;
		my ($id, $rule, $file, $line, $what, $edits) = split /\t/;
		push @mutants, {id => $id, rule => $rule, file => $file, line => $line, what => $what,
			edits => [map { my @e = split /,/, $_, -1; $e[2] = pack 'H*', $e[2]; \@e }
				split /;/, $edits]};
	}
	close $in or die "generate failed\n";
	return @mutants;
}

# The text of a file with a fault in it: from the end, so that offsets hold.
sub planted {
	my ($text, $m) = @_;
	for (sort { $b->[0] <=> $a->[0] } @{$m->{edits}}) {
		substr($text, $_->[0], $_->[1]) = $_->[2];
	}
	return $text;
}

# Faults that a rule would not think of, as pieces of a patch without line numbers:
#
#     @@ NAME FILE [tsan]: what is wrong with it
#      a line that stays
#     -a line that goes
#     +a line that comes
#
# What stays and what goes must stand in FILE exactly once. Returns the list, then complaints.
sub hand_written {
	my ($tree, $path) = @_;
	my (@mutants, @gone);
	my @pieces = -e $path ? split /^(?=@@ )/m, slurp($path) : ();
	for (@pieces) {
		my ($head, @lines) = split /\n/;
		next if $head !~ /^@@ /;
		my ($name, $file, $tsan, $what) = $head =~ /^@@ (\S+) (\S+?)( tsan)?: (.*)$/
			or die "$path: cannot read '$head'\n";
		@lines = grep { /^[ +-]/ } @lines;
		my $old = join '', map { /^[ -](.*)/ ? "$1\n" : () } @lines;
		my $new = join '', map { /^[ +](.*)/ ? "$1\n" : () } @lines;
		my $text = -e "$tree/$file" ? slurp("$tree/$file") : '';
		my $at = index $text, $old;
		if ($at < 0 || index($text, $old, $at + 1) >= 0) {
			push @gone, sprintf '%s: %s: its lines stand in %s %s', $path, $name, $file,
				$at < 0 ? 'no more' : 'more than once';
			next;
		}
		push @mutants, {id => "hand:$name", rule => 'hand', file => $file, what => $what,
			tsan => !!$tsan, line => 1 + (substr($text, 0, $at) =~ tr/\n//),
			edits => [[$at, length $old, $new]]};
	}
	return (\@mutants, @gone);
}

# --- copies of the tree

my @KEPT = qw(CMakeLists.txt CMakePresets.json notifier shadow vmm guests tests docs README.md LICENSE);

sub files_below {
	my ($path) = @_;
	return ($path) if !-d $path;
	opendir my $dir, $path or die "$path: $!\n";
	return map { files_below("$path/$_") } sort grep { !/^\.\.?$/ } readdir $dir;
}

# Only what differs is written: the rest stays built.
sub mirror {
	my ($tree, $copy) = @_;
	for my $top (grep { -e "$tree/$_" } @KEPT) {
		my %wanted;
		for my $from (files_below("$tree/$top")) {
			my $to = $copy . substr $from, length $tree;
			my $text = slurp($from);
			$wanted{$to} = 1;
			next if -e $to && slurp($to) eq $text;
			make_path(dirname($to));
			spew($to, $text);
			chmod((stat $from)[2] & 07777, $to);
		}
		unlink grep { !$wanted{$_} } -e "$copy/$top" ? files_below("$copy/$top") : ();
	}
}

# --- the results of the last run

# A verdict holds while the sources it was found on are the same. A survivor is always run again.
sub fingerprint {
	my ($tree, $area) = @_;
	my $all = '';
	$all .= slurp($_) for map { sort glob "'$tree'/$_" } @{$area->{sources}};
	return fnv($all);
}

package State;

sub open {
	my ($class, $path, $fingerprint, $resume) = @_;
	my $self = bless {}, $class;
	my ($was, @lines) = -e $path ? split(/\n/, main::slurp($path)) : $fingerprint;
	my $changed = $was ne $fingerprint;
	print STDERR "dev: the sources have changed since the last run: from the beginning\n"
		if $resume && $changed;
	# What no longer holds still says which test to try first.
	@lines = map { s/\tkilled\t/\twas-killed\t/r } grep { /\t(was-)?killed\t/ } @lines
		if $changed || !$resume;
	for (@lines) {
		my ($id, $verdict, $detail) = split /\t/, $_, 3;
		$self->{known}{$id} = [$verdict, $detail];
	}
	main::make_path(main::dirname($path));
	CORE::open($self->{file}, '>', $path) or die "$path: $!\n";
	$self->{file}->autoflush(1);
	print {$self->{file}} "$fingerprint\n";
	print {$self->{file}} "$_\n" for @lines;
	return $self;
}

sub get {
	my ($self, $id) = @_;
	return @{$self->{known}{$id} // []};
}

# By fault, which test killed it in this run or an earlier one. How long it took is no part of that.
sub killers {
	my ($self) = @_;
	my $known = $self->{known};
	return map { $_ => $known->{$_}[1] =~ s/ \(out of time\)$//r }
		grep { $known->{$_}[0] =~ /killed$/ } keys %$known;
}

sub put {
	my ($self, @fields) = @_;
	$self->{known}{$fields[0]} = [@fields[1, 2]];
	print {$self->{file}} join("\t", @fields) . "\n";
}

1;
